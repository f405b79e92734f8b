"""``tesserl watch``: a policy that plays in a window or in the terminal."""

import json
import re
import signal
import subprocess
import sys
from typing import ClassVar

import gymnasium as gym
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from tesserl_configs import load_config
from tesserl_trainer import train
from tesserl_trainer.cli import main

pytestmark = pytest.mark.kernel_free

RUN = """
total_steps: 64
environment: {{id: {id}, num_envs: 2}}
nn: {{vector: {{kind: mlp, hidden_sizes: [8]}}}}
algorithm: ppo
ppo: {{num_steps: 32, num_minibatches: 2}}
evaluation: {{episodes: 1, final_episodes: 1, max_episode_steps: 5}}
logging: {{tensorboard: false}}
"""
SAID = re.compile(r"seed (\d+): return ([\d.]+), (\d+) steps \((step_\d+)\)")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of a task that writes text, and one of a task that does not."""
    place = tmp_path_factory.mktemp("watch")
    found = {}
    for name in ("FrozenLake-v1", "CartPole-v1"):
        (place / "run.yaml").write_text(RUN.format(id=name))
        found[name] = train(load_config(place / "run.yaml"), run_dir=place / name)
    return found


class Blind(CartPoleEnv):
    """A task without a window."""

    metadata: ClassVar = {"render_modes": ["rgb_array"]}


class Undrawn(CartPoleEnv):
    """A task that draws with a package that is not installed."""

    def reset(self, **options):
        raise gym.error.DependencyNotInstalled("pygame is not installed")


@pytest.fixture
def window(monkeypatch):
    """A window that nobody sees."""
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


def test_a_task_that_writes_text_is_shown_before_each_step_and_at_the_end(runs, capfd):
    assert main(["watch", str(runs["FrozenLake-v1"]), "--terminal", "--episodes", "2", "--seed", "5"]) == 0
    out = capfd.readouterr().out
    episodes = SAID.findall(out)
    assert [seed for seed, *_ in episodes] == ["5", "6"]
    assert out.count("FHFH") == sum(int(steps) + 1 for _, _, steps, _ in episodes)


@pytest.mark.parametrize("options", [[], ["--stochastic"], ["--checkpoint", "latest"]])
def test_the_episodes_are_those_of_an_evaluation(runs, capfd, options):
    run = str(runs["CartPole-v1"])
    assert main(["eval", run, "--episodes", "1", *options]) == 0
    result = json.loads(capfd.readouterr().out)
    assert main(["watch", run, "--terminal", "--episodes", "1", *options]) == 0
    seed, episode_return, steps, checkpoint = SAID.fullmatch(capfd.readouterr().out.strip()).groups()
    assert (int(seed), float(episode_return), int(steps)) == (
        result["seed"],
        result["return_mean"],
        result["lengths"][0],
    )
    assert checkpoint == result["checkpoint"]


def test_a_window_opens_where_there_is_a_display(runs, capfd, window):
    assert main(["watch", str(runs["CartPole-v1"]), "--episodes", "1"]) == 0
    assert SAID.fullmatch(capfd.readouterr().out.strip())


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (
            "Blind-v0",
            r"Blind-v0 opens no window \(its render modes are \['rgb_array'\]\); watch in the terminal with tesserl ",
        ),
        ("Undrawn-v0", r"Undrawn-v0 cannot be drawn \(pygame is not installed\); install \"tesserl-trainer\[video\]\""),
    ],
)
def test_a_task_that_cannot_be_watched_is_one_sentence(runs, capfd, monkeypatch, window, task, said):
    for name, entry_point in {"Blind-v0": Blind, "Undrawn-v0": Undrawn}.items():
        monkeypatch.setitem(gym.registry, name, gym.envs.registration.EnvSpec(name, entry_point))
    assert main(["watch", str(runs["CartPole-v1"]), "--set", f"environment.id={task}"]) == 2
    assert re.search(said, capfd.readouterr().err)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a display")
def test_without_a_display_one_sentence_names_the_other_ways(runs, capfd, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    run = runs["CartPole-v1"]
    assert main(["watch", str(run)]) == 2
    assert capfd.readouterr().err == (
        "error: there is no display for a window (DISPLAY and WAYLAND_DISPLAY are not set); watch in the terminal with "
        f"tesserl watch {run} --terminal, or film it with tesserl eval {run} --video\n"
    )


def test_ctrl_c_ends_it_in_order(runs):
    words = ["watch", str(runs["CartPole-v1"]), "--terminal", "--episodes", "1000000"]
    command = [sys.executable, "-u", "-m", "tesserl_trainer.cli", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert SAID.match(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip()) == (130, "stopped by SIGINT")
