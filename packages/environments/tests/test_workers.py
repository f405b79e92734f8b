"""Environments in other processes that raise, exit or sleep, and actions on their way to them."""

import multiprocessing
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from tesserl_environments import (
    Resumable,
    WorkerEnvironments,
    WorkerError,
    close,
    closed_afterwards,
    restore,
    snapshot,
    step,
)
from tesserl_environments.worker_process import Description

from .troubled import Troubled

pytestmark = pytest.mark.kernel_free

PATIENCE = 300.0
"""Seconds; where nobody sleeps, tests shall not fail on a machine that is busy."""


MESSAGES = {
    "sleep": r"environment worker 0 did not answer within 0.5 s; raise worker_timeout",
    "exit": r"environment worker 1 died \(exit code 7\)",
    "kill": r"environment worker 1 died \(exit code -9\)",
    "raise": r"(?s)environment worker 1 raised an error:\nTraceback .*Unpicklable: the task broke",
}

ASKED = {
    "reset": lambda environments: environments.reset(seed=[1, 2, 3]),
    "step": lambda environments: step(environments, np.zeros(3, np.int64)),
    "call": snapshot,
    "restore": lambda environments: restore(environments, [{"actions": []}] * 3),
    "set_attr": lambda environments: environments.set_attr("color", "red"),
}


LATE = r"environment worker 0 did not make its environment within 10 s; raise start_timeout"


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
    assert restore(environments, [{"actions": [0] * length} for length in (2, 5, 0)])
    assert seen == [PATIENCE * 6]
    assert environments.timeout == PATIENCE
    close(environments, failed=True)


def test_a_worker_does_not_wait_for_torch():
    """Every worker starts as a new process (torchrl chooses "spawn") and imports what its environment is made with."""
    code = "import sys, tesserl_environments as e; print(sorted({'torch', 'tensordict', 'pydantic'} & {*sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert run.stdout == "[]\n"


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


def test_the_environment_gets_clipped_actions():
    environments = SyncVectorEnv([Steered] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    environments.reset()
    raw = np.array([[-3.0, 5.0], [0.5, -0.25]], np.float32)
    assert step(environments, raw)[1].tolist() == [4.0, 0.5]
    assert [environment.arrived for environment in environments.envs] == [[[-1, 5]], [[0.5, 0]]]


def test_remembered_actions_do_not_change_when_their_array_is_used_again():
    environment = Resumable(Steered(), 0)
    environment.reset()
    actions = np.array([[0.25, 0.5]], np.float32)
    environment.step(actions[0])
    actions[:] = 0.75
    assert environment.snapshot()["actions"] == [[0.25, 0.5]]
