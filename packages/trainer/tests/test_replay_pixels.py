"""Runs whose replay shares frames, holds transitions out, or paces the updates."""

import gc
import json

import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load_file
from tensordict import TensorDict

from tesserl_analysis.record import read_metrics
from tesserl_configs import ConfigError, load_config
from tesserl_environments import ObservationLayout
from tesserl_replay import FrameStorage
from tesserl_trainer import train
from tesserl_trainer.algorithms.replay import build_replay
from tesserl_training.checkpoints.run_checkpoints import Checkpoints
from tesserl_training.replay_segments import Segments

from .pictures import Pictures

PIXELS = {
    "MinAtar/Breakout-v1": "Pictures-v0",
    "num_envs: 3": "num_envs: 3, wrappers: [{kind: frame_stack, num_frames: 3}]",
}
OPTIONS = "weight_exponent: alpha, alpha: 0.2, test_fraction: 0.2, cut_at_exploration: true"
RAINBOW = {
    "kind: uniform": f"kind: prioritized, {OPTIONS}",
    "heads: {hidden_sizes: [11]}": "heads: {hidden_sizes: [11], noisy: true}",
    "epsilon: {kind: linear, knots: [[0, 1.0], [100, 0.1]]}": "epsilon: 1.0",
}
RATIO = {"update_interval: 2": "double: true", "warmup_steps: 30": "warmup_steps: 30, ratio: 3.7"}
WHOLE = {"capacity: 90": "capacity: 90, share_frames: false"}
ON_DISK = {"capacity: 90": "capacity: 90, storage: memmap"}


LAYOUT = ObservationLayout(Pictures().observation_space)


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch):
    monkeypatch.setattr(Segments.__init__, "__kwdefaults__", {"size": 32})


def outcome(run_dir):
    manifest = json.loads((Checkpoints(run_dir).latest() / "manifest.json").read_text())
    metrics = [row[:3] for row in read_metrics(run_dir / "metrics.csv") if not row[1].startswith("time/")]
    for name in ("run_id", "sha256", "record"):  # another id in every run, and times in the record
        del manifest[name]
    return {**manifest, "metrics": metrics}


@pytest.mark.parametrize("changes", [PIXELS | RAINBOW, PIXELS | RATIO | ON_DISK], ids=["rainbow", "ratio-memmap"])
def test_n_steps_and_n_steps_are_two_n_steps_with_shared_frames(write_config, tmp_path, changes):
    config = load_config(write_config("MinAtar/Breakout-v1", **changes))
    whole = outcome(train(config, run_dir=tmp_path / "whole"))
    run_dir = train(config.model_copy(update={"total_steps": 120}), run_dir=tmp_path / "halves")
    train(config, run_dir=run_dir, resume=True)
    assert outcome(run_dir) == whole
    tensors = load_file(next(iter(sorted((run_dir / "replay").glob("*")))))
    assert tensors["pixels"].dtype == torch.int32
    assert len(tensors["frames"]) < len(tensors["pixels"]) * 3  # a third of it would be six
    full = (tensors["steps_to_next_obs"] == 3).float().mean()  # of a third of the actions that are greedy, or all
    assert full < 0.3 if config.replay.cut_at_exploration else full > 0.4
    assert {path.name for path in run_dir.iterdir()} >= {"replay", "checkpoints"}


def test_learning_is_the_same_whether_frames_are_shared_or_not(write_config, tmp_path):
    metrics = []
    for i, changes in enumerate((PIXELS, PIXELS | WHOLE)):
        config = load_config(write_config("MinAtar/Breakout-v1", **changes))
        metrics.append(outcome(train(config, run_dir=tmp_path / str(i)))["metrics"])
    assert metrics[0] == metrics[1]


@pytest.mark.parametrize("kind", ["uniform", "prioritized"])
def test_testing_changes_nothing_and_its_batches_are_never_learnt_from(write_config, tmp_path, kind):
    changes = {"kind: uniform": f"kind: {kind}, test_fraction: 0.3"}
    changes["heads: {hidden_sizes: [11]}"] = "heads: {hidden_sizes: [11], noisy: true}"
    results = []
    for i, interval in enumerate((30, 200)):
        logging = {"logging: {interval: 30": f"logging: {{interval: {interval}"}
        results.append(outcome(train(load_config(write_config(**changes, **logging)), run_dir=tmp_path / str(i))))
    assert results[0]["files"]["networks.safetensors"] == results[1]["files"]["networks.safetensors"]
    names = [[name for _, name, _ in result["metrics"]] for result in results]
    assert names[0].count("test/loss") == names[0].count("test/td_error") == 8
    assert names[1].count("test/loss") == 2


def test_sharing_frames_needs_frames(write_config, tmp_path):
    shared = {"capacity: 90": "capacity: 90, share_frames: true"}
    with pytest.raises(ConfigError, match=r"replay\.share_frames: is for images and nn\.vision has kind none"):
        load_config(write_config("CartPole-v1", **shared))
    config = load_config(write_config("MinAtar/Breakout-v1", **shared))
    assert isinstance(build_replay(config, tmp_path, LAYOUT).buffer.storage, FrameStorage)
    floats = ObservationLayout(spaces.Box(0.0, 1.0, (12, 9, 1), np.float32))
    with pytest.raises(ConfigError, match=r"share_frames: needs an observation with an image of uint8"):
        build_replay(config, tmp_path, floats)


def test_what_is_kept_on_disk_lies_in_the_directory_of_the_run_while_it_is_needed(write_config, tmp_path):
    config = load_config(write_config("MinAtar/Breakout-v1", **ON_DISK))
    replay = build_replay(config, tmp_path / "run", LAYOUT)
    replay.extend(TensorDict({"pixels": torch.zeros(3, 1, 12, 9, dtype=torch.uint8)}, [3]))
    assert (tmp_path / "run" / "buffer" / "pixels.memmap").stat().st_size == 90 * 12 * 9
    del replay
    gc.collect()
    assert not (tmp_path / "run" / "buffer").exists()


def test_frames_are_shared_where_the_environment_stacks_them(write_config, tmp_path):
    alone = load_config(write_config("MinAtar/Breakout-v1"))
    assert not isinstance(build_replay(alone, tmp_path, LAYOUT).buffer.storage, FrameStorage)
    stacked = load_config(write_config("MinAtar/Breakout-v1", **PIXELS))
    assert isinstance(build_replay(stacked, tmp_path, LAYOUT).buffer.storage, FrameStorage)
    assert stacked.environment.stacked_frames == 3
    atari = alone.environment.model_copy(update={"vectorization": "atari"})
    assert atari.stacked_frames == 4
