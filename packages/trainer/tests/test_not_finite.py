"""Scores and JSON files with numbers that are not finite: NaN, inf and -inf."""

import json
import math

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from tesserl_analysis.record import read_metrics, series
from tesserl_configs import load_config
from tesserl_environments import Boundary, Resumable
from tesserl_preference_data.trajectories import EpisodeLine, _episode
from tesserl_storage.state import join_state, split_state
from tesserl_storage.whole_files import write_json
from tesserl_trainer import train
from tesserl_trainer.cli import main
from tesserl_trainer.inspect.runs import read_score
from tesserl_trainer.sweep.jobs import Ended, Job
from tesserl_trainer.sweep.sweep import _Report, note_on_stderr

pytestmark = pytest.mark.kernel_free


def strict(text: str):
    """Parse JSON as its standard says: NaN and Infinity are no numbers."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


class Scored(gym.Env):
    """Episodes of four steps; evaluation number k returns ``rewards[k]``, a training episode 4."""

    observation_space, action_space = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(2)
    rewards: tuple[float, ...] = ()
    resets = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.reward = 0, 1.0
        if seed in (10_000, 1_010_000):  # of an evaluation during training, and of the final one
            self.reward = Scored.rewards[min(Scored.resets, len(Scored.rewards) - 1)] / 4  # one episode an evaluation
            Scored.resets += 1
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(3, np.float32), self.reward, self.t == 4, False, {}


gym.register("Scored-v0", entry_point=Scored)

CONFIG = """
total_steps: 160
environment: {id: Scored-v0, num_envs: 2}
nn: {vector: {kind: mlp, hidden_sizes: [4]}}
algorithm: ppo
ppo: {num_steps: 16, num_minibatches: 1, num_epochs: 1}
evaluation: {interval: 32, episodes: 1, final_episodes: 1, num_envs: 1}
checkpoint: {interval: 32, keep_last: 1}
logging: {interval: 32, tensorboard: false}
"""


@pytest.fixture(autouse=True)
def unchecked(monkeypatch):
    """Let scores through that a task may not return, to see what the files of a run make of them."""
    monkeypatch.setattr(Boundary, "_require_finite", lambda *_: None)


def trained(tmp_path, *scores: float):
    (tmp_path / "scored.yaml").write_text(CONFIG)
    Scored.rewards, Scored.resets = scores, 0
    return train(load_config(tmp_path / "scored.yaml"), run_dir=tmp_path / "run")


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("scores", "best"),
    [(("odd", 8.0, 4.0, 4.0, 4.0), 64), ((4.0, 8.0, "odd", 4.0, 4.0), 64), ((8.0, 4.0, 4.0, 4.0, "odd"), 32)],
    ids=["first", "in-between", "last"],
)
def test_a_score_that_is_not_finite_is_never_the_best(tmp_path, capfd, odd, scores, best):
    run = trained(tmp_path, *(odd if score == "odd" else score for score in scores))
    pointer = strict((run / "checkpoints" / "best.json").read_text())
    assert pointer["checkpoint"] == f"step_{best:09d}"
    assert pointer["return_mean"] == 8.0
    assert (run / "checkpoints" / pointer["checkpoint"]).is_dir()
    assert f"is {odd}; it cannot be the best one" in capfd.readouterr().err


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_every_json_file_of_a_run_is_json_when_no_score_is_finite(tmp_path, capfd, odd):
    run = trained(tmp_path, odd)
    files = sorted(run.rglob("*.json"))
    assert {file.name for file in files} >= {"evaluation.json", "state.json", "manifest.json", "latest.json"}
    documents = {file.name: strict(file.read_text()) for file in files}
    assert not (run / "checkpoints" / "best.json").exists()
    assert documents["evaluation.json"]["return_mean"] is None
    assert documents["evaluation.json"]["returns"] == [None]
    assert math.isnan(odd) == math.isnan(series(read_metrics(run / "metrics.csv"), "evaluation/return")[1][0])
    capfd.readouterr()
    assert main(["eval", str(run), "--episodes", "1", "--checkpoint", "latest"]) == 0
    assert strict(capfd.readouterr().out)["returns"] == [None]
    assert main(["compare", str(run)]) == 1
    assert "evaluation/return is not finite (null); leave the run out" in capfd.readouterr().err


class Masked(gym.Env):
    """An observation that holds a NaN and an infinity where nothing is known."""

    observation_space, action_space = spaces.Box(-np.inf, np.inf, (3,), np.float32), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.array([self.np_random.random(), np.nan, np.inf], np.float32), {}

    def step(self, action):
        return np.array([self.np_random.random(), np.nan, -np.inf], np.float32), 0.0, False, False, {}


def test_an_environment_is_restored_exactly_though_its_observation_is_not_finite():
    environment = Resumable(Masked(), 0)
    environment.reset(seed=4)
    environment.step(1)
    document, _ = split_state(environment.snapshot())
    saved = join_state(strict(json.dumps(document, allow_nan=False)), {})
    assert Resumable(Masked(), 0).restore([saved])
    saved["observation"][0] += 1
    assert not Resumable(Masked(), 0).restore([saved])


def test_the_return_of_a_stored_episode_may_be_nan():
    line = EpisodeLine(3, math.nan, 0, 0).line()
    assert strict(line)["return"] is None
    assert math.isnan(_episode("here", line).episode_return)


def test_the_best_value_of_a_metric_is_the_largest_finite_one(tmp_path):
    for values, best in (([math.nan, 2.0, 1.0], 2.0), ([1.0, 3.0, math.nan, math.inf], 3.0)):
        rows = "".join(f"{step},x,{value},0.0\n" for step, value in enumerate(values))
        (tmp_path / "metrics.csv").write_text(f"step,name,value,time\n{rows}")
        assert read_score(tmp_path, "x", last=False)[0] == best


def test_a_sweep_reports_a_run_without_a_finite_return(tmp_path, capfd):
    write_json(tmp_path / "evaluation.json", {"return_mean": math.nan, "return_std": math.nan})
    report = _Report(1, 0, note_on_stderr())
    report.ended(Ended(Job("base/seed-1", tmp_path, tmp_path, 1), 0, 1.0, stopped=False))
    assert "base/seed-1: return nan ± nan" in capfd.readouterr().err
