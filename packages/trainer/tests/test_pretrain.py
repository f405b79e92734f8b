"""Behaviour cloning by itself: ``tesserl pretrain bc``, and runs that start from what it made."""

import numpy as np
import pytest
import torch

from tesserl_configs import load_config
from tesserl_preference_data.trajectory_writer import TrajectoryWriter
from tesserl_trainer import train
from tesserl_trainer.cli import main
from tesserl_training.checkpoints.checkpoint import load_checkpoint
from tesserl_training.checkpoints.run_checkpoints import Checkpoints

from .conftest import episodes
from .test_on_policy import metrics_of

STATISTICS = {"hidden_sizes: [5]}": "hidden_sizes: [5], normalization: {kind: running}}"}


@pytest.fixture(scope="module")
def trajectories(tmp_path_factory):
    """A directory of stored episodes."""
    path = tmp_path_factory.mktemp("trajectories") / "cartpole"
    with TrajectoryWriter(path, source={"policy": "random"}) as writer:
        for number, episode in enumerate(episodes("CartPole-v1", 20)):
            done = torch.zeros(len(episode), 1, dtype=torch.bool)
            done[-1] = True
            episode["next", "terminated"], episode["next", "truncated"] = done, torch.zeros_like(done)
            episode["action_log_prob"] = torch.full((len(episode),), -np.log(2))
            writer.add(episode, number)
    return path


def still_the_same(first, second):
    """The actors of two runs have equal weights, statistics of observations apart."""
    weights = [load_checkpoint(Checkpoints(run_dir).latest()).state["networks"] for run_dir in (first, second)]
    names = [name for name in weights[0] if name.endswith("weight")]
    assert names
    for name in names:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=0, atol=1e-8)


@pytest.mark.parametrize("source", ["--pairs", "--trajectories"])
@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_cloning_makes_a_policy_that_other_runs_start_from(
    write_config, stores, trajectories, tmp_path, capsys, source, algorithm
):
    data = {"--pairs": stores / "CartPole-v1", "--trajectories": trajectories}[source]
    config, cloned = write_config(algorithm=algorithm, **STATISTICS), tmp_path / "cloned"
    assert main(["pretrain", "bc", str(config), source, str(data), "--updates", "60", "--run-dir", str(cloned)]) == 0
    assert capsys.readouterr().out.strip() == str(cloned)
    metrics = metrics_of(cloned)
    assert metrics["train/updates"] == [30, 60]
    assert metrics["train/nll_loss"][-1] < np.log(2) + 0.01
    still = ["optimizer.learning_rate=1e-12", f"initial_weights={cloned}", "total_steps=30"]
    still_the_same(cloned, train(load_config(config, still), run_dir=tmp_path / "run"))
    assert main(["train", "--resume", str(cloned)]) == 1
    assert "not a run that could continue" in capsys.readouterr().err


@pytest.mark.parametrize("algorithm", ["ppo", "grpo", "dpo", "cpl"])
def test_few_updates_are_enough_however_long_a_rollout_is(write_config, stores, tmp_path, algorithm):
    config = write_config(algorithm=algorithm)
    changes = ["--set", "ppo.num_steps=80"] if algorithm == "ppo" else []  # a rollout of 240 steps
    cloned, pairs = tmp_path / "cloned", ["--pairs", str(stores / "CartPole-v1")]
    assert main(["pretrain", "bc", str(config), *pairs, "--updates", "2", "--run-dir", str(cloned), *changes]) == 0
    assert metrics_of(cloned)["train/updates"] == [2]
    assert load_config(cloned / "config.yaml").name == "tiny-bc"
    assert main(["eval", str(cloned), "--episodes", "1"]) == 0


def test_the_name_of_a_cloned_run_is_not_too_long(write_config, stores, tmp_path, capsys):
    pairs = ["--pairs", str(stores / "CartPole-v1"), "--set", f"name={'a' * 198}"]
    assert main(["pretrain", "bc", str(write_config(algorithm="ppo")), *pairs, "--run-dir", str(tmp_path / "r")]) == 2
    assert (
        "expected at most 200 bytes, as it becomes a directory, got 201; set a shorter name" in capsys.readouterr().err
    )


def test_cloning_needs_a_policy_and_one_kind_of_data(write_config, stores, capsys):
    pairs = ["--pairs", str(stores / "CartPole-v1")]
    assert main(["pretrain", "bc", str(write_config(algorithm="ppo"))]) == 2
    assert "name either --pairs or --trajectories" in capsys.readouterr().err
    assert main(["pretrain", "bc", str(write_config("Pendulum-v1", "ppo")), *pairs]) == 2
    assert "expected observation of the shape (3,), got (4,)" in capsys.readouterr().err
    assert main(["pretrain", "bc", str(write_config()), *pairs]) == 2
    assert "iqn has no policy that could clone actions" in capsys.readouterr().err
