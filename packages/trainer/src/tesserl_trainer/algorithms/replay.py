"""Build the replay buffer from ``replay:``."""

import logging
import shutil
import weakref
from pathlib import Path

import numpy as np
import torch
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer

from tesserl_configs import ConfigError, RunConfig, value_at
from tesserl_environments import ObservationLayout
from tesserl_replay import FrameStorage, PrioritizedSampler
from tesserl_replay.disk import MemmapStorage
from tesserl_training.replay import Replay
from tesserl_training.replay_segments import Segments


def build_replay(config: RunConfig, run_dir: Path, layout: ObservationLayout, *, rank: int = 0) -> Replay:
    """Build the replay buffer of a run or of one rank; checkpoints store its content in ``run_dir``."""
    logging.getLogger("torchrl").setLevel(logging.WARNING)  # torchrl prints a line to stdout for every new storage
    settings = config.replay
    options = {}
    if settings.kind == "prioritized":
        sampler = PrioritizedSampler(
            settings.capacity,
            alpha=settings.alpha,
            beta=value_at(settings.beta, 0),
            eps=settings.eps,
            weight_exponent=settings.weight_exponent,
        )
        options = {"sampler": sampler, "priority_key": "td_error"}
    elif settings.test_fraction:
        options = {"sampler": PrioritizedSampler(settings.capacity, alpha=0.0)}  # samples uniformly, can skip items
    return Replay(
        TensorDictReplayBuffer(
            storage=_storage(config, run_dir / f"rank_{rank}" if rank else run_dir, layout), **options
        ),
        settings.capacity,
        Segments(run_dir, rank),
        prioritized=settings.kind == "prioritized",
        test_fraction=settings.test_fraction,
        device=config.device,
    )


def _storage(config: RunConfig, run_dir: Path, layout: ObservationLayout) -> LazyTensorStorage:
    settings, on_disk = config.replay, config.replay.storage == "memmap"
    num_frames = config.environment.stacked_frames
    images = layout.dtypes.get("pixels") == np.uint8
    if settings.share_frames and not images:
        raise ConfigError(
            f"replay.share_frames: needs an observation with an image of uint8, {config.environment.id} yields "
            f"{layout.shapes or 'none'}; write null"
        )
    if images and (settings.share_frames or (settings.share_frames is None and num_frames > 1)):
        if on_disk:
            run_dir.mkdir(parents=True, exist_ok=True)
        return FrameStorage(
            settings.capacity,
            num_frames=num_frames,
            scratch_dir=run_dir if on_disk else None,
            pin_memory=torch.device(config.device).type == "cuda",
        )
    if not on_disk:
        return LazyTensorStorage(settings.capacity)
    # without a directory, torchrl would put the files into shared memory and install signal handlers to clean up
    directory = run_dir / "buffer"
    storage = MemmapStorage(settings.capacity, scratch_dir=directory)
    weakref.finalize(storage, shutil.rmtree, directory, ignore_errors=True)
    return storage
