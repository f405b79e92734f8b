"""Tasks with action masks, from the environment to the trained policy: no forbidden action is ever taken."""

import json
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from tesserl_collectors.collector import Collector
from tesserl_collectors.episodes import UniformActions
from tesserl_environments import MaskFromInfo, ObservationLayout, closed_afterwards
from tesserl_preference_data import TrajectoryWriter
from tesserl_preference_data.trajectories import load_trajectories
from tesserl_trainer.cli import main
from tesserl_trainer.export.export import export

from .conftest import ALGORITHMS
from .exported import run_file, untrained_run
from .masked import Safe

PQN = """
algorithm: pqn
pqn: {num_steps: 8, num_epochs: 2, num_minibatches: 3, require_layer_norm: false}
"""
EXAMPLE = Path(__file__).parents[3] / "examples/masked_actions/run.yaml"
LEARNING = {
    "ppo": ("total_steps=3200", "ppo.num_steps=40", "ppo.num_epochs=4", "optimizer.learning_rate=0.01"),
    "iqn": ("total_steps=1200", "optimizer.learning_rate=0.01", "iqn.num_steps=1"),
    "pqn": ("total_steps=2400", "optimizer.learning_rate=0.01"),
    "grpo": ("total_steps=3000", "optimizer.learning_rate=0.01"),
    "dpo": ("total_steps=2400", "optimizer.learning_rate=0.01"),
}
"""Options with which an algorithm learns the task within seconds."""

PICTURES = ["nn.vision={kind: cnn, channels: [3], kernel_sizes: [3], strides: [2]}", "nn.vector={kind: none}"]
ONE_ENVIRONMENT = ["environment.num_envs=1", "ppo.num_steps=30", "evaluation.num_envs=1"]

BY_MODULE = ["environment.id=masked:tesserl-tests/Safe-v0", f"environment.module_path=[{Path(__file__).parent}]"]
"""The task by the module that registers it, for processes that import nothing else."""


def on_safe(**kwargs):
    """Return overrides that put a configuration on the task, with its episodes as long as they are."""
    options = ", ".join(f"{name}: {value}" for name, value in kwargs.items())
    wrappers = "[{kind: mask_from_info}]" if kwargs.get("told") == "info" else "[]"
    chosen = [
        "environment.id=tesserl-tests/Safe-v0",
        f"environment.kwargs={{{options}}}",
        f"environment.wrappers={wrappers}",
    ]
    return [part for override in chosen for part in ("--set", override)]


def sets(*overrides):
    return [part for override in overrides for part in ("--set", override)]


@pytest.mark.parametrize("algorithm", LEARNING)
def test_every_algorithm_learns_with_allowed_actions_alone(write_config, tmp_path, capsys, algorithm):
    run = tmp_path / "run"
    rarely = [f"{block}.interval=10000" for block in ("evaluation", "checkpoint", "logging")]
    arguments = [*on_safe(), *sets(*rarely, *LEARNING[algorithm])]
    known = {"algorithm": algorithm} if algorithm != "pqn" else {"algorithm": "ppo", ALGORITHMS["ppo"]: PQN}
    assert main(["train", str(write_config(**known)), "--run-dir", str(run), *arguments]) == 0
    capsys.readouterr()
    assert main(["eval", str(run), "--episodes", "4"]) == 0
    assert json.loads(capsys.readouterr().out)["return_mean"] >= 7  # of 8; random allowed actions have 4


@pytest.mark.parametrize(
    ("algorithm", "kwargs", "overrides"),
    [
        ("ppo", {"actions": "blocks"}, ["environment.vectorization=async", *ONE_ENVIRONMENT]),
        ("ppo", {"actions": "choices", "told": "info"}, ["ppo.loss=torchrl"]),
        ("ppo", {"told": "info"}, ["nn.memory={kind: gru, hidden_size: 7}"]),
        ("iqn", {"actions": "blocks"}, ["iqn.munchausen={}"]),
        ("iqn", {"told": "info"}, ["replay.storage=memmap"]),
        ("iqn", {"shows": "picture"}, [*PICTURES, "replay.share_frames=true"]),
        ("grpo", {"actions": "choices"}, ["grpo.kl={coef: 0.1, estimator: exact}"]),
        ("cpl", {"told": "info"}, ["cpl.alpha=0.2"]),
    ],
)
def test_all_kinds_of_actions_are_masked_and_a_continued_run_equals_the_whole(
    write_config, tmp_path, algorithm, kwargs, overrides
):
    file, arguments = str(write_config(algorithm=algorithm)), [*on_safe(**kwargs), *sets(*overrides)]
    whole, resumed = (str(tmp_path / name) for name in ("whole", "resumed"))
    assert main(["train", file, "--run-dir", whole, *arguments]) == 0
    assert main(["train", file, "--run-dir", resumed, *arguments, *sets("total_steps=120")]) == 0
    assert main(["train", "--resume", resumed, *sets("total_steps=240")]) == 0
    results = [json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("whole", "resumed")]
    assert results[0]["returns"] == results[1]["returns"]


@pytest.mark.parametrize("masked", ["true", "false"])
def test_the_example_trains_with_and_without_its_mask(tmp_path, monkeypatch, masked):
    monkeypatch.setattr(sys, "path", [*sys.path])
    changes = sets(f"environment.kwargs.masked={masked}", "total_steps=512", "ppo.num_epochs=1")
    few = sets("evaluation.interval=512", "evaluation.episodes=2", "evaluation.final_episodes=2")
    assert main(["train", str(EXAMPLE), "--run-dir", str(tmp_path / "run"), *changes, *few]) == 0


def test_collectors_in_other_processes_know_the_masks(write_config, tmp_path):
    process = ["collectors={kind: process, workers: 1, delay: 0}", "total_steps=60", *BY_MODULE]
    arguments = [*on_safe(), *sets(*process)]
    assert main(["train", str(write_config()), "--run-dir", str(tmp_path / "run"), *arguments]) == 0


@pytest.mark.parametrize(
    ("algorithm", "file_format", "kwargs"),
    [("ppo", "onnx", {"actions": "choices"}), ("ppo", "pt2", {"actions": "blocks"}), ("iqn", "onnx", {})],
)
def test_the_mask_is_an_input_of_an_exported_policy(write_config, tmp_path, algorithm, file_format, kwargs):
    file = write_config(algorithm=algorithm)
    run_dir, policy = untrained_run(tmp_path / "run", file, on_safe(**kwargs)[1::2])
    result = export(run_dir, format=file_format, checkpoint="latest")
    assert list(result["inputs"])[:2] == ["observation", "action_mask"]
    assert result["inputs"]["action_mask"]["dtype"] == "bool"
    mask = torch.ones(6, 3, 2, dtype=torch.bool)
    mask[:, :, 0] = False
    mask = mask.reshape(6, *result["inputs"]["action_mask"]["shape"][1:])
    inputs = {"observation": torch.randn(6, 9), "action_mask": mask}
    taus = {} if algorithm == "ppo" else {"taus": (torch.arange(5) + 0.5).expand(6, -1) / 5}
    with policy.greedy() as greedy:
        assert torch.equal(run_file(result, inputs | taus)["action"], greedy.act(*inputs.values()))


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_state_without_an_allowed_action_is_an_error_that_names_the_environment(
    write_config, tmp_path, capfd, vectorization
):
    arguments = [*on_safe(forbids="all"), *sets(f"environment.vectorization={vectorization}")]
    assert main(["train", str(write_config(algorithm="ppo")), "--run-dir", str(tmp_path / "run"), *arguments]) == 1
    worker = " worker" if vectorization == "async" else ""
    assert (
        f"environment{worker} 0 of tesserl-tests/Safe-v0: action_mask must allow at least one" in capfd.readouterr().err
    )


def test_a_mask_of_continuous_actions_is_refused(write_config, tmp_path, capfd):
    class Masked(gym.ObservationWrapper):
        def __init__(self, environment):
            super().__init__(environment)
            self.observation_space = gym.spaces.Dict(
                {"seen": environment.observation_space, "action_mask": gym.spaces.MultiBinary(1)}
            )

        def observation(self, observation):
            return {"seen": observation, "action_mask": np.ones(1, np.int8)}

    gym.register("tesserl-tests/MaskedPendulum-v0", lambda: Masked(gym.make("Pendulum-v1")))
    file = str(write_config("CartPole-v1", "ppo"))
    wrong = sets("environment.id=tesserl-tests/MaskedPendulum-v0")
    assert main(["train", file, "--run-dir", str(tmp_path / "run"), *wrong]) == 2
    assert "action_mask is for Discrete and MultiDiscrete actions, got Box" in capfd.readouterr().err


@pytest.mark.parametrize("algorithm", ["ppo", "iqn"])
def test_the_layers_of_a_network_with_masks_are_shown(write_config, capsys, algorithm):
    assert main(["config", "show", str(write_config(algorithm=algorithm)), "--shapes", *on_safe()]) == 0
    assert "2 x 9" in capsys.readouterr().out  # the vector alone


@pytest.mark.parametrize(
    ("actions", "mode"),
    [
        ("single", AutoresetMode.SAME_STEP),
        ("blocks", AutoresetMode.NEXT_STEP),
        ("choices", AutoresetMode.DISABLED),
    ],
)
def test_uniform_actions_are_allowed_ones_with_their_probability(actions, mode):
    tasks = SyncVectorEnv([lambda: MaskFromInfo(Safe(actions, told="info"))] * 3, autoreset_mode=mode)
    with closed_afterwards(tasks) as environments:
        space = environments.single_action_space
        layout = ObservationLayout(environments.single_observation_space, action_space=space)
        uniform = UniformActions(space, 1, mask=layout.mask)
        batch = Collector(environments, layout, uniform.act, seeds=[1, 2, 3]).collect(40)
    assert torch.equal(batch["next", "action_mask"].flatten(2).any(-1), ~batch["next", "terminated"].squeeze(-1))
    batch = batch[batch["mask"]]
    inputs, number = [batch[key] for key in layout.keys], 1 if actions == "single" else 2  # of choices
    assert torch.allclose(uniform.log_prob(batch["action"], *inputs), torch.tensor(-number * np.log(2)).float())
    forbidden = batch["action"].clone().reshape(len(batch), -1)
    options = 6 if number == 1 else int(space.nvec[-1])  # of the last choice
    forbidden[:, -1] = (~batch["action_mask"].flatten(1)[:, -options:]).int().argmax(-1)
    assert (uniform.log_prob(forbidden.reshape(batch["action"].shape), *inputs) == -torch.inf).all()


def forbidden_action_in(store, tmp_path):
    """Return a copy of a store of episodes whose first action is forbidden."""
    episode = load_trajectories(store)[0].clone()
    episode["action"][0] = int((~episode["action_mask"][0]).int().argmax())
    with TrajectoryWriter(tmp_path / "forbidden", source={"policy": "known"}) as writer:
        writer.add(episode, start=0)
    return str(tmp_path / "forbidden")


def test_stores_hold_masks_and_policies_are_cloned_and_trained_from_them(write_config, tmp_path, capsys):
    file, episodes, pairs = str(write_config(algorithm="dpo")), str(tmp_path / "episodes"), str(tmp_path / "pairs")
    assert main(["collect", file, "--random", "--episodes", "60", "--out", episodes, *on_safe()]) == 0
    assert load_trajectories(episodes).keys == ["action_mask", "observation"]
    assert main(["pairs", "make", episodes, "--num", "200", "--out", pairs]) == 0
    refused = main(["pretrain", "bc", file, "--trajectories", forbidden_action_in(episodes, tmp_path), *on_safe()])
    assert refused == 2
    assert "expected actions that their action_mask allows, got" in capsys.readouterr().err
    offline = sets(f"pairs.source={{kind: offline, path: {pairs}}}", "optimizer.learning_rate=0.01")
    commands = {
        "cloned": ["pretrain", "bc", file, "--pairs", pairs, "--data", "chosen", "--updates", "100", *offline],
        "dpo": ["train", file, "--set", "total_steps=300", *offline],
        "mixed": ["collect", str(tmp_path / "dpo"), "--epsilon", "0.5", "--episodes", "2", "--out", episodes],
    }
    for name, command in commands.items():
        run = ["--run-dir", str(tmp_path / name)] if name != "mixed" else []
        assert main([*command, *run, *(on_safe() if run else [])]) == 0
    capsys.readouterr()
    assert main(["eval", str(tmp_path / "dpo"), "--episodes", "4"]) == 0
    assert json.loads(capsys.readouterr().out)["return_mean"] > 5  # of 8; the pairs are of episodes with 4 on average
