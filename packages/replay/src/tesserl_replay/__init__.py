"""Replay for value-based agents: multi-step windows, and a sampler and a storage of pixels for torchrl's buffers.

Imports nothing of its siblings, so that it can leave as a package of its own.
"""

from tesserl_iqn.replay.frames import FrameStorage
from tesserl_iqn.replay.n_step import NStepWindow, n_step_returns
from tesserl_iqn.replay.prioritized import PrioritizedSampler
from tesserl_iqn.replay.sum_tree import SumTree

__all__ = ["FrameStorage", "NStepWindow", "PrioritizedSampler", "SumTree", "n_step_returns"]
