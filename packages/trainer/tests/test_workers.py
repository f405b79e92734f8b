"""Environments in other processes that raise, exit or sleep, and actions on their way to them."""

import json
import multiprocessing
import re
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from tesserl_trainer.cli import main
from tesserl_trainer.run import resumable
from tesserl_trainer.run.checkpoints import Checkpoints
from tesserl_trainer.run.collect import Collector
from tesserl_trainer.run.evaluate import evaluate_policy
from tesserl_trainer.run.observations import ObservationLayout
from tesserl_trainer.run.processes import WorkerError
from tesserl_trainer.run.resumable import Resumable
from tesserl_trainer.run.worker_process import Description
from tesserl_trainer.run.workers import WorkerEnvironments, close, closed_afterwards, step

from .troubled import Doomed, Troubled

pytestmark = pytest.mark.kernel_free

PATIENCE = 300.0
"""Seconds; where nobody sleeps, tests shall not fail on a machine that is busy."""


MESSAGES = {
    "sleep": r"environment worker 0 did not answer within 0.5 s; raise environment.worker_timeout",
    "exit": r"environment worker 1 died \(exit code 7\)",
    "kill": r"environment worker 1 died \(exit code -9\)",
    "raise": r"(?s)environment worker 1 raised an error:\nTraceback .*Unpicklable: the task broke",
}

ASKED = {
    "reset": lambda environments: environments.reset(seed=[1, 2, 3]),
    "step": lambda environments: step(environments, np.zeros(3, np.int64)),
    "call": resumable.snapshot,
    "restore": lambda environments: resumable.restore(environments, [{"actions": []}] * 3),
    "set_attr": lambda environments: environments.set_attr("color", "red"),
}


LATE = r"environment worker 0 did not make its environment within 10 s; raise environment.start_timeout"


def make(moment, kind, number=None, **timeouts):
    """Three workers, one of them in trouble: number 1, or the first one if it sleeps, as that is who is missed."""
    number = int(kind != "sleep") if number is None else number
    makers = [lambda i=i: Troubled(moment if i == number else None, kind) for i in range(3)]
    return WorkerEnvironments(makers, **{"timeout": PATIENCE, "start_timeout": PATIENCE} | timeouts)


@pytest.fixture
def alive():
    """Fails where a worker is left over."""
    before = set(multiprocessing.active_children())
    yield
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.parametrize("kind", list(MESSAGES))
@pytest.mark.parametrize("moment", list(ASKED))
def test_whoever_waits_for_a_worker_hears_what_became_of_it(alive, moment, kind):
    environments = make(moment, kind)
    if moment != "reset":
        environments.reset()
    environments.timeout = 0.5 if kind == "sleep" else PATIENCE
    with pytest.raises(WorkerError, match=MESSAGES[kind]):
        ASKED[moment](environments)
    close(environments, failed=True)


@pytest.mark.parametrize("kind", list(MESSAGES))
def test_a_worker_that_cannot_make_its_environment_is_named(alive, kind):
    message = MESSAGES[kind] if kind != "sleep" else LATE
    with pytest.raises(WorkerError, match=message):
        make("make", kind, start_timeout=10.0 if kind == "sleep" else PATIENCE)


@pytest.mark.parametrize("kind", ["exit", "raise"])
def test_a_first_worker_that_cannot_make_its_environment_is_named(alive, kind):
    with pytest.raises(WorkerError, match=MESSAGES[kind].replace("worker 1", "worker 0")):
        make("make", kind, number=0)


def test_a_worker_that_starts_later_than_the_first_one_is_waited_for_no_longer(alive):
    makers = [lambda: Troubled(None, None), lambda: Troubled("make", "sleep")]
    described = Description({}, None, Troubled.observation_space, Troubled.action_space)
    with pytest.raises(WorkerError, match=LATE.replace("worker 0", "worker 1")):
        WorkerEnvironments(makers, timeout=PATIENCE, start_timeout=10.0, description=described)


def test_workers_that_fail_together_are_named_in_their_order(alive):
    makers = [lambda i=i: Troubled("step" if i else None, "raise") for i in range(3)]
    environments = WorkerEnvironments(makers, timeout=PATIENCE)
    environments.reset()
    with pytest.raises(WorkerError, match=MESSAGES["raise"]):
        step(environments, np.zeros(3, np.int64))
    close(environments, failed=True)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("sleep", r"environment worker 0 did not close its environment within 3 s"),
        ("exit", r"environment worker 1 died while it closed \(exit codes \[0, 7, 0\]\)"),
        ("raise", r"environment worker 1 died while it closed \(exit codes \[0, 1, 0\]\)"),
    ],
)
def test_a_worker_that_does_not_close_is_ended_and_named(alive, kind, message):
    environments = make("close", kind)
    environments.reset()
    environments.timeout = 3.0 if kind == "sleep" else PATIENCE
    with pytest.raises(WorkerError, match=message):
        close(environments, failed=False)
    close(environments, failed=True)


@pytest.mark.parametrize("kind", ["sleep", "exit", "raise"])
def test_what_does_not_close_is_a_warning_once_its_work_is_done(alive, caplog, kind):
    environments = make("close", kind)
    with closed_afterwards(environments):
        environments.reset()
        environments.timeout = 3.0 if kind == "sleep" else PATIENCE
    [warning] = caplog.messages
    assert warning.startswith(f"warning: environment worker {int(kind != 'sleep')} di")


def test_workers_that_have_nothing_to_complain_of_close_quietly(alive):
    environments = make(None, None)
    environments.reset()
    step(environments, np.zeros(3, np.int64))
    close(environments, failed=False)


def test_workers_that_are_ended_at_once_say_nothing(alive, capfd):
    environments = make(None, None)
    environments.reset()
    close(environments, failed=True)
    assert capfd.readouterr().err == ""


def test_a_worker_may_take_its_time_for_every_step_that_it_replays():
    environments = make(None, None)
    seen = []
    environments.call = lambda *arguments: seen.append(environments.timeout) or [True] * 3
    assert resumable.restore(environments, [{"actions": [0] * length} for length in (2, 5, 0)])
    assert seen == [PATIENCE * 6]
    assert environments.timeout == PATIENCE
    close(environments, failed=True)


def test_a_worker_does_not_wait_for_torch():
    """Every worker starts as a new process (torchrl chooses "spawn") and imports what its environment is made with."""
    code = (
        "import sys, tesserl_trainer.wiring.environments as e; print(sorted({'torch', 'tensordict'} & {*sys.modules}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert run.stdout == "[]\n"


# --- in a run -----------------------------------------------------------------------------------------------------


gym.register("Doomed-v0", entry_point=Doomed, max_episode_steps=500)


def doomed(write_config, tmp_path, kind, at):
    """A configuration of three workers, of which one gets into trouble at its step ``at``."""
    path = tmp_path / "plan.json"
    seeds = [int(child.generate_state(1)[0]) for child in np.random.SeedSequence(3).spawn(3)]
    path.write_text(json.dumps({"seed": seeds[kind != "sleep"], "step": at, "kind": kind}))
    timeout = 10 if kind == "sleep" else PATIENCE
    kwargs = f"kwargs: {{path: {path}}}, vectorization: async, worker_timeout: {timeout}"
    changes = {"{id: CartPole-v1, num_envs: 3}": f"{{id: Doomed-v0, num_envs: 3, {kwargs}}}"}
    return path, write_config(**changes)


def dies_and_is_resumed(write_config, tmp_path, capfd, kind, at):
    plan, config = doomed(write_config, tmp_path, kind, at)
    run_dir = tmp_path / "run"
    assert main(["train", str(config), "--run-dir", str(run_dir)]) == 1
    told = capfd.readouterr().err
    assert f"error: environment worker {int(kind != 'sleep')} " in told
    assert ("Unpicklable: the task broke" in told) == (kind == "raise")
    assert not multiprocessing.active_children()
    plan.unlink()
    assert main(["train", "--resume", str(run_dir)]) == 0, capfd.readouterr().err
    whole = tmp_path / "whole"
    patient = ["--set", f"environment.worker_timeout={PATIENCE}"]
    assert main(["train", str(config), "--run-dir", str(whole), *patient]) == 0
    outcomes = [json.loads((Checkpoints(path).latest() / "manifest.json").read_text()) for path in (run_dir, whole)]
    assert outcomes[0]["step"] == 240
    assert outcomes[0]["files"]["networks.safetensors"] == outcomes[1]["files"]["networks.safetensors"]


@pytest.mark.parametrize(("kind", "at"), [("raise", 31), ("exit", 47), ("sleep", 74)])
def test_a_run_whose_worker_fails_says_so_and_goes_on_once_the_cause_is_gone(write_config, tmp_path, capfd, kind, at):
    dies_and_is_resumed(write_config, tmp_path, capfd, kind, at)


@pytest.mark.parametrize(("algorithm", "at"), [("ppo", 72), ("grpo", 110), ("dpo", 72)])
def test_a_worker_that_dies_loses_nothing_in_any_loop(write_config, tmp_path, capfd, algorithm, at):
    plan = tmp_path / "plan.json"
    task = f"{{id: Doomed-v0, kwargs: {{path: {plan}}}, vectorization: async, num_envs: 3}}"
    config, run_dir, whole = write_config(algorithm=algorithm, **{"{id: CartPole-v1, num_envs: 3}": task}), "run", "all"
    plan.write_text(json.dumps({"seed": None, "step": at, "kind": "exit"}))
    assert main(["train", str(config), "--run-dir", str(tmp_path / run_dir)]) == 1
    assert re.search(r"error: environment worker \d died \(exit code 7\)", capfd.readouterr().err)
    assert not plan.exists()
    assert main(["train", "--resume", str(tmp_path / run_dir)]) == 0
    assert main(["train", str(config), "--run-dir", str(tmp_path / whole)]) == 0
    manifests = [Checkpoints(tmp_path / name).latest() / "manifest.json" for name in (run_dir, whole)]
    resumed, uninterrupted = (json.loads(manifest.read_text()) for manifest in manifests)
    assert resumed["step"] == uninterrupted["step"] >= 240
    assert resumed["files"]["networks.safetensors"] == uninterrupted["files"]["networks.safetensors"]


@pytest.mark.soak
@pytest.mark.parametrize("kind", list(MESSAGES))
def test_a_run_survives_trouble_at_any_step(write_config, tmp_path, capfd, kind):
    for index, at in enumerate(np.random.default_rng(list(MESSAGES).index(kind)).integers(14, 80, 8).tolist()):
        (tmp_path / str(index)).mkdir()
        dies_and_is_resumed(write_config, tmp_path / str(index), capfd, kind, at)


# --- actions ------------------------------------------------------------------------------------------------------


class Steered(gym.Env):
    """Continuous actions; the reward is the sum of what arrived, an episode lasts three steps."""

    observation_space = spaces.Box(-1, 1, (1,))
    action_space = spaces.Box(np.array([-1, 0], np.float32), np.array([1, np.inf], np.float32))

    def reset(self, *, seed=None, options=None):
        self.t, self.arrived = 0, []
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        self.arrived.append(action.tolist())
        return np.zeros(1, np.float32), float(action.sum()), False, self.t == 3, {}


def test_the_environment_gets_clipped_actions_and_the_batch_keeps_raw_ones():
    environments = SyncVectorEnv([Steered] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    raw = torch.tensor([[-3.0, 5.0], [0.5, -0.25]])
    collector = Collector(environments, ObservationLayout(Steered.observation_space), lambda observation: raw)
    batch = collector.collect(2)
    assert [environment.arrived for environment in environments.envs] == [[[-1, 5]] * 2, [[0.5, 0]] * 2]
    assert torch.equal(batch["action"], raw[:, None].expand(2, 2, 2))
    assert batch["next", "reward"][:, 0, 0].tolist() == [4.0, 0.5]


def test_evaluation_clips_the_same_way():
    environments = SyncVectorEnv([Steered], autoreset_mode=AutoresetMode.DISABLED)
    layout = ObservationLayout(Steered.observation_space)
    policy = lambda observation: torch.tensor([[-3.0, 5.0]])  # noqa: E731
    assert evaluate_policy(policy, environments, layout, [1], max_episode_steps=9).returns == [12.0]


def test_remembered_actions_do_not_change_when_their_array_is_used_again():
    environment = Resumable(Steered(), 0)
    environment.reset()
    actions = np.array([[0.25, 0.5]], np.float32)
    environment.step(actions[0])
    actions[:] = 0.75
    assert environment.snapshot()["actions"] == [[0.25, 0.5]]
