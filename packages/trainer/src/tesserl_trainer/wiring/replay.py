"""``replay:`` -> a replay buffer."""

import logging
from pathlib import Path

from torchrl.data import LazyMemmapStorage, LazyTensorStorage, TensorDictReplayBuffer

from tesserl_configs import RunConfig, value_at
from tesserl_iqn.replay import PrioritizedSampler
from tesserl_trainer.run.replay import Replay
from tesserl_trainer.run.segments import Segments


def build_replay(config: RunConfig, run_dir: Path) -> Replay:
    """Builds the replay buffer of a run.

    Args:
        config: the whole configuration.
        run_dir: directory of the run; checkpoints keep the buffer's content there.
    """
    logging.getLogger("torchrl").setLevel(logging.WARNING)  # it reports every new storage on standard output
    settings = config.replay
    storage_type = LazyMemmapStorage if settings.storage == "memmap" else LazyTensorStorage
    prioritized = settings.kind == "prioritized"
    options = {}
    if settings.kind == "prioritized":
        sampler = PrioritizedSampler(
            settings.capacity, alpha=settings.alpha, beta=value_at(settings.beta, 0), eps=settings.eps
        )
        options = {"sampler": sampler, "priority_key": "td_error"}
    buffer = TensorDictReplayBuffer(storage=storage_type(settings.capacity), **options)
    return Replay(buffer, settings.capacity, Segments(run_dir), prioritized=prioritized, device=config.device)
