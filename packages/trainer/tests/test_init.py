"""``tesserl init``: a file that trains as it is written."""

import io
import sys
from itertools import pairwise

import gymnasium as gym
import pytest

from tesserl_configs import load_config
from tesserl_configs.document import parse
from tesserl_trainer.cli import main

pytestmark = pytest.mark.kernel_free

TASK = """\
import gymnasium as gym
import numpy as np
from gymnasium import spaces

class Lamp(gym.Env):
    def __init__(self, side=12, continuous=False):
        image = spaces.Box(0, 255, (side, side, 3), np.uint8)
        self.observation_space = spaces.Dict({"image": image, "speed": spaces.Box(-1, 1, (2,), np.float32)})
        self.action_space = spaces.Box(-1, 1, (2,), np.float32) if continuous else spaces.Discrete(3)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}
    def step(self, action):
        return self.observation_space.sample(), 1.0, self.np_random.random() < 0.2, False, {}

gym.register("Lamp-v0", entry_point=Lamp)
gym.register("BigLamp-v0", entry_point=Lamp, kwargs={"side": 120, "continuous": True})
"""
SHORT = [
    *(f"{block}.interval=1000000" for block in ("evaluation", "logging", "checkpoint")),
    *("evaluation.final_episodes=1", "evaluation.max_episode_steps=9", "environment.num_envs=2"),
    "logging.tensorboard=false",
]
QUICK = {
    "ppo": ["ppo.num_steps=16"],
    "iqn": ["total_steps=1100"],
    "grpo": ["grpo.group_size=2", "grpo.num_groups=2"],
    "pqn": ["pqn.num_steps=16"],
    "cpl": [],
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory with a task of its own, in which commands run."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    for imported, name in [(sys.modules, "lamp_task"), (gym.registry, "Lamp-v0"), (gym.registry, "BigLamp-v0")]:
        monkeypatch.setitem(imported, name, None)  # removed again at the end
        del imported[name]
    (tmp_path / "lamp_task.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("task", "algorithm", "file"),
    [
        ("CartPole-v1", "iqn", "cartpole-iqn.yaml"),
        ("Pendulum-v1", "ppo", "pendulum-ppo.yaml"),
        ("Pendulum-v1", "cpl", "pendulum-cpl.yaml"),
        ("MinAtar/Breakout-v1", "pqn", "minatar-breakout-pqn.yaml"),
        ("lamp_task:Lamp-v0", "grpo", "lamp-grpo.yaml"),
        ("lamp_task:BigLamp-v0", "ppo", "biglamp-ppo.yaml"),
        ("FrozenLake-v1", "iqn", "frozenlake-iqn.yaml"),
    ],
)
def test_a_file_is_valid_and_trains_as_it_is_written(place, capfd, task, algorithm, file):
    assert main(["init", "--env", task, "--algorithm", algorithm]) == 0
    assert capfd.readouterr().out == f"{file}\n"
    assert main(["config", "validate", file]) == 0
    changes = [word for change in ("total_steps=64", *SHORT, *QUICK[algorithm]) for word in ("--set", change)]
    assert main(["train", file, "--run-dir", "run", *changes]) == 0, capfd.readouterr().err
    config = load_config(file)
    parts = [config.nn.vision.kind, config.nn.vector.kind]
    assert parts == {"MinAtar/Breakout-v1": ["cnn", "none"]}.get(task, ["cnn" if "Lamp" in task else "none", "mlp"])


@pytest.mark.parametrize("algorithm", ["ppo", "iqn", "grpo", "dpo", "cpl", "pqn"])
def test_every_algorithm_has_a_start_with_a_meaning_above_each_key(place, algorithm):
    assert main(["init", "--env", "CartPole-v1", "--algorithm", algorithm, "mine.yaml"]) == 0
    lines = (place / "mine.yaml").read_text().splitlines()
    for before, line in pairwise(lines):
        named = ":" in line and not line.lstrip().startswith(("#", "kind:"))
        assert not named or before.lstrip().startswith("#"), line
    data = parse("\n".join(lines)).data
    assert data["algorithm"] == algorithm
    assert data["environment"] == {"id": "CartPole-v1", "num_envs": 8}


def test_a_task_without_a_time_limit_gets_one(place):
    for task, wrappers in {"Lamp-v0": ["time_limit"], "BigLamp-v0": ["grayscale", "resize", "time_limit"]}.items():
        assert main(["init", "--env", f"lamp_task:{task}", "--algorithm", "grpo", f"{task}.yaml"]) == 0
        assert [wrapper.kind for wrapper in load_config(f"{task}.yaml").environment.wrappers] == wrappers


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            [],
            "--env is missing: expected an id of Gymnasium, such as CartPole-v1, or module:Id; there is no terminal to",
        ),
        (["--env", "CartPole-v1"], "--algorithm is missing: expected one of iqn, ppo, grpo, dpo, cpl, pqn"),
        (
            ["--env", "Pendulum-v1", "--algorithm", "iqn"],
            "--algorithm iqn: expected one that is installed and has actions Box(-2.0, 2.0, (1,), float32) of "
            "Pendulum-v1; choose ppo, grpo, dpo, cpl",
        ),
        (["--env", "CartPool-v1", "--algorithm", "ppo"], "environment.id: Environment `CartPool` doesn't exist"),
        (["--env", "CartPole-v1", "--algorithm", "ppo", "there.yaml"], "there.yaml is there already"),
        (["--env", "CartPole-v1", "--algorithm", "ppo", "no/where.yaml"], "where.yaml: no such file or directory"),
    ],
)
def test_what_cannot_be_written_is_one_sentence_and_changes_nothing(place, capfd, arguments, said):
    (place / "there.yaml").write_text("mine")
    assert main(["init", *arguments]) != 0
    assert said in capfd.readouterr().err
    assert (place / "there.yaml").read_text() == "mine"
    assert {file.name for file in place.iterdir()} <= {"there.yaml", "lamp_task.py", "__pycache__"}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_it_asks_for_what_is_missing(place, monkeypatch, capfd):
    monkeypatch.setattr(sys, "stdin", Terminal("CartPole-v1\nsac\nppo\n"))
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert main(["init"]) == 0
    assert capfd.readouterr().out.splitlines()[-1].endswith("cartpole-ppo.yaml")
    assert "'sac' is not one of" in sys.stderr.getvalue()
