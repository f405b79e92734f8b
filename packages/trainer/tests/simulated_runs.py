"""Tiny runs of every algorithm, on the CPU and on the simulated device."""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tesserl_collectors.process import prepare_process
from tesserl_configs import RunConfig, load_config
from tesserl_storage.generators import seed_generators
from tesserl_trainer.algorithms import builder_of
from tesserl_trainer.algorithms.run import Run
from tesserl_trainer.algorithms.task import Task
from tesserl_training.checkpoints.checkpoint import Checkpoint
from tesserl_training.checkpoints.run_checkpoints import Checkpoints
from tesserl_training.progress import ProgressDisplay

from . import simulated_lstm  # noqa: F401 - for runs with a memory
from .conftest import THREADS
from .simulated import NAME, Place, Simulation, simulation

PRIORITIES = {"{kind: uniform, capacity: 90": "{kind: prioritized, capacity: 90"}
NOISE = {"heads: {hidden_sizes: [11]}": "heads: {hidden_sizes: [11], noisy: true, dueling: true}"}
MUNCHAUSEN = {"  num_taus: 4": "  munchausen: {alpha: 0.9}\n  num_taus: 4"}
IMPALA = {
    "kind: cnn, channels: [5], kernel_sizes: [3], strides: [1]": "kind: impala, channels: [4], spectral_norm: all"
}
LSTM = {"heads: {hidden_sizes: [11]}": "heads: {hidden_sizes: [11]}\n  memory: {kind: lstm, hidden_size: 7}"}
STATISTICS = {"hidden_sizes: [5]}": "hidden_sizes: [5], normalization: {kind: running}}"}
KL = {"  reduction: dapo": "  reduction: dapo\n  kl: {coef: 0.1, estimator: k3}"}
TARGET_KL = {"  num_steps: 10": "  target_kl: 100.0\n  num_steps: 10"}
RATE = {"learning_rate: 1.0e-3": "learning_rate: {kind: linear, knots: [[0, 1.0e-3], [240, 1.0e-4]]}"}
ENTROPY = {"  num_steps: 10": "  entropy_coef: {kind: linear, knots: [[0, 0.1], [240, 0.01]]}\n  num_steps: 10"}
CLIP = {"  loss: {kind: clip}": "  loss: {kind: clip, clip_epsilon: {kind: linear, knots: [[0, 0.3], [240, 0.1]]}}"}
PQN = "algorithm: pqn\npqn: {num_steps: 10, num_epochs: 2, num_minibatches: 3, require_layer_norm: false}\n"

BREAKOUT, CARTPOLE = "MinAtar/Breakout-v1", "CartPole-v1"
CASES = {
    "iqn": (CARTPOLE, "iqn", STATISTICS),
    "iqn, priorities, noise, Munchausen": (CARTPOLE, "iqn", PRIORITIES | NOISE | MUNCHAUSEN),
    "btr": (BREAKOUT, "iqn", PRIORITIES | NOISE | MUNCHAUSEN | IMPALA),
    "ppo": (CARTPOLE, "ppo", STATISTICS | RATE | ENTROPY),
    "ppo, pixels": (BREAKOUT, "ppo", {}),
    "ppo, target_kl": (CARTPOLE, "ppo", TARGET_KL),
    "ppo, LSTM": (CARTPOLE, "ppo", LSTM),
    "pqn": (CARTPOLE, "pqn", {}),
    "grpo": (CARTPOLE, "grpo", RATE | CLIP),
    "grpo, KL": (CARTPOLE, "grpo", KL),
    "dpo": (CARTPOLE, "dpo", {}),
    "cpl": (CARTPOLE, "cpl", {}),
}


class Recorded:
    """A run on a device, with what happened in each of its rounds."""

    def __init__(self, config: RunConfig, directory: Path, checkpoint: Checkpoint | None = None) -> None:
        self.rounds: list[Counter[Any]] = []
        directory.mkdir(exist_ok=True)
        prepare_process(THREADS)
        seed_generators(config.seed)
        with ExitStack() as stack:
            simulated = stack.enter_context(simulation()) if config.device == NAME else Simulation()
            progress = stack.enter_context(ProgressDisplay(config.total_steps, 0, quiet=True))
            loop = builder_of(config.algorithm).build_loop(Task(config), Run(directory, progress, stack))
            if checkpoint is not None:
                loop.load(checkpoint)
            loop.journal.open_log(resume_step=None if checkpoint is None else checkpoint.step)
            begin_round = loop.journal.begin_round

            def count_and_begin() -> int:
                self.rounds.append(simulated.events.copy())
                return begin_round()

            loop.journal.begin_round = count_and_begin
            loop.run()
        self.updates = loop.journal.updates
        self.networks = {
            name: tensor.cpu() for name, tensor in Checkpoints(directory).load("latest").state["networks"].items()
        }

    def events(self, kind: str) -> list[Counter[Place]]:
        """Return how often an event of a kind happened in each round but the last, by place."""
        found = []
        for before, after in zip(self.rounds, self.rounds[1:], strict=False):
            happened = (after - before).items()
            found.append(Counter({place: number for (each, place), number in happened if each == kind}))
        return found


def configuration(
    write_config: Callable[..., Path], case: str, device: str = NAME, *, graph: bool = False, **changes: object
) -> RunConfig:
    """Return the configuration of a case on a device, which only tests can name."""
    environment, algorithm, replacements = CASES[case]
    path = write_config(environment, "ppo" if algorithm == "pqn" else algorithm, **replacements)
    if algorithm == "pqn":
        path.write_text(path.read_text().partition("algorithm: ppo")[0] + PQN)
    few = ["total_steps=72", "evaluation.episodes=1", "evaluation.max_episode_steps=3"]
    rare = [f"{block}.interval=1000" for block in ("logging", "evaluation", "checkpoint")]
    config = load_config(path, [*few, *rare])
    if graph:
        changes[algorithm] = config.options.model_copy(update={"cuda_graph": True})
    return config.model_copy(update={"device": device, **changes})
