"""Tasks and wrappers of a user's own module: found in every process, and never imported to look at a file."""

import json
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

from tesserl_configs import load_config
from tesserl_configs.environment import RescaleAction
from tesserl_trainer.algorithms.environments import wrap_of
from tesserl_trainer.cli import main

pytestmark = pytest.mark.kernel_free

TASK = """\
import gymnasium as gym
import numpy as np
from gymnasium import spaces

class Corridor(gym.Env):
    def __init__(self, length=5):
        self.length = length
        self.observation_space = spaces.Dict({"place": spaces.Box(0, 9, (1,), np.float32), "goal": spaces.Discrete(3)})
        self.action_space = spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 0
        return self.seen(), {}
    def seen(self):
        return {"place": np.array([self.place], np.float32), "goal": 1}
    def step(self, action):
        self.place = max(self.place + (1 if action == 1 else -1), 0)
        return self.seen(), -1.0, self.place >= self.length, False, {}

class Cheaper(gym.RewardWrapper):
    def __init__(self, environment, factor):
        super().__init__(environment)
        self.factor = factor
    def reward(self, reward):
        return reward * self.factor

gym.register("Corridor-v0", entry_point=Corridor, max_episode_steps=30)
"""
RUN = """\
total_steps: 128
environment:
  id: corridor_task:Corridor-v0
  num_envs: 2
  vectorization: {vectorization}
  wrappers:
    - {{kind: select_keys, keys: [place]}}
    - {{kind: flatten}}
    - {{kind: "corridor_task:Cheaper", kwargs: {{factor: 0.5}}}}
nn: {{vector: {{kind: mlp, hidden_sizes: [8]}}}}
algorithm: ppo
ppo: {{num_steps: 16, num_minibatches: 2}}
evaluation: {{interval: 128, episodes: 2, final_episodes: 2, num_envs: 2}}
checkpoint: {{interval: 64}}
logging: {{tensorboard: false}}
"""


def tesserl(*arguments, at):
    """Run a command in a process of its own, as a shell would, in another directory."""
    command = [sys.executable, "-m", "tesserl_trainer.cli", *map(str, arguments)]
    done = subprocess.run(command, cwd=at, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory with a task and a configuration beside it; what is imported in this process is forgotten."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    for imported, name in [(sys.modules, "corridor_task"), (gym.registry, "Corridor-v0")]:
        monkeypatch.setitem(imported, name, None)  # removed again at the end
        del imported[name]
    (tmp_path / "mine").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "mine/corridor_task.py").write_text(TASK)
    return tmp_path


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_task_beside_the_file_is_trained_resumed_and_evaluated_from_anywhere(place, vectorization):
    file, run = place / "mine/run.yaml", place / "run"
    file.write_text(RUN.format(vectorization=vectorization))
    tesserl("train", file, "--run-dir", run, at=place / "elsewhere")
    tesserl("train", "--resume", run, "--set", "total_steps=192", at=place)
    result = json.loads(tesserl("eval", run, "--episodes", 3, at="/").stdout)
    assert -15 <= result["return_mean"] <= -2.5  # half a point for each of 5 to 30 steps
    assert load_config(run / "config.yaml").environment.module_path == (str(place / "mine"), str(place / "elsewhere"))


def test_a_module_in_the_working_directory_is_found(place):
    file = place / "elsewhere/run.yaml"
    file.write_text(RUN.format(vectorization="sync"))
    tesserl("observe", file, "--out", place / "seen.png", at=place / "mine")


def test_looking_at_a_file_imports_nothing(place, monkeypatch):
    (place / "mine/corridor_task.py").write_text("raise SystemExit('imported')")
    file = place / "mine/run.yaml"
    file.write_text(RUN.format(vectorization="sync"))
    for command in ("validate", "show"):
        assert main(["config", command, str(file)]) == 0


@pytest.mark.parametrize(
    ("text", "override", "said"),
    [
        (None, "environment.id=no_such_module:X-v0", "environment.id: there is no module no_such_module; install its"),
        (None, "environment.imports=[no.such]", "environment.imports: there is no module no; install its package"),
        (
            "import no_such_part",
            None,
            "environment.id: corridor_task cannot be imported: No module named",
        ),
        ("1 / 0", None, "environment.id: corridor_task cannot be imported: ZeroDivisionError: division by zero"),
        (TASK, "environment.wrappers=[{kind: 'corridor_task:Dearer'}]", "wrappers: corridor_task has no Dearer"),
        (TASK, "environment.id=corridor_task:Corridoor-v0", "environment.id: "),
    ],
)
def test_a_wrong_module_is_an_error_that_names_the_key(place, capfd, text, override, said):
    file = place / "mine/run.yaml"
    file.write_text(RUN.format(vectorization="sync"))
    (place / "mine/corridor_task.py").write_text(text or TASK)
    changed = ["--set", override] if override else []
    assert main(["train", str(file), "--run-dir", str(place / "run"), *changed]) == 2
    assert said in capfd.readouterr().err


def test_rescaled_actions_reach_the_task_in_its_own_bounds():
    wrapped = wrap_of(RescaleAction(low=-1.0, high=1.0))(gym.make("Pendulum-v1"))
    assert (wrapped.action_space.low, wrapped.action_space.high) == (-1.0, 1.0)
    assert wrapped.action(np.array([0.5], np.float32)) == pytest.approx(1.0)  # Pendulum's torque is in -2..2
