"""``tesserl eval``: plays a trained policy and reports its returns."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tesserl_environments import closed_afterwards
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.commands.runs import run_config
from tesserl_trainer.run.checkpoints import Checkpoints

UNUSED_SEEDS = 1_000_000
"""Distance from ``evaluation.seed`` to the seeds that no evaluation during training plays."""


def evaluate(
    run_dir: str | Path,
    *,
    episodes: int = 100,
    seed: int | None = None,
    checkpoint: str = "best",
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Plays episodes with the greedy policy of a run.

    Args:
        run_dir: directory of the run.
        episodes: number of episodes, at least 1.
        seed: the episodes are seeded ``seed, seed + 1, ...``; by default seeds that training never used.
        checkpoint: ``"best"``, ``"latest"``, or the name of a directory in ``checkpoints/``.
        overrides: ``key=value`` on top of the run's configuration, such as another task or device.

    Returns:
        ``return_mean``, ``return_std``, ``returns``, ``lengths``, ``episodes``, ``seed``, ``checkpoint``.

    Raises:
        CheckpointError: there is no such run or checkpoint, or it is damaged.
        ValueError: ``episodes`` is not positive.
    """
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}")
    run_dir = Path(run_dir)
    config = run_config(run_dir, overrides)
    weights = Checkpoints(run_dir).load_weights(checkpoint)
    torch.set_num_threads(config.num_threads)
    first = config.evaluation.seed + UNUSED_SEEDS if seed is None else seed
    settings = config.evaluation
    task = Task(config)
    made = task.environments(min(settings.num_envs, episodes), evaluation=True)
    with closed_afterwards(made) as environments:
        agent = task.agent()
        agent.load_networks(weights.networks, weights.path)
        result = task.play(agent, environments, range(first, first + episodes))
    return {
        "return_mean": result.return_mean,
        "return_std": result.return_std,
        "returns": result.returns,
        "lengths": result.lengths,
        "episodes": episodes,
        "seed": first,
        "checkpoint": weights.path.name,
    }
