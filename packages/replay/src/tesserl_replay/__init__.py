"""N-step windows, a prioritised sampler and a storage of stacked frames for torchrl's replay buffers."""

from tesserl_replay.__about__ import __version__
from tesserl_replay.frames import FrameStorage
from tesserl_replay.n_step import NStepWindow, n_step_returns
from tesserl_replay.prioritized import PrioritizedSampler
from tesserl_replay.sum_tree import SumTree

__all__ = ["FrameStorage", "NStepWindow", "PrioritizedSampler", "SumTree", "__version__", "n_step_returns"]
