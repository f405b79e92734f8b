"""Frames on a GPU, where there is one."""

import pytest
import torch
from tensordict import TensorDict

from tesserl_replay import FrameStorage

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_stacks_are_put_together_in_pinned_memory():
    storage, plain = FrameStorage(8, num_frames=2, pin_memory=True), FrameStorage(8, num_frames=2)
    pixels = torch.randint(256, (8, 2, 5, 7), dtype=torch.uint8)
    batch = TensorDict({"pixels": pixels, "next": {"pixels": pixels.flip(0)}, "action": torch.arange(8)}, [8])
    for each in (storage, plain):
        each.set(range(8), batch)
    index = torch.tensor([3, 1, 1])
    read = storage.get(index)
    assert read["pixels"].is_pinned()
    assert read["next", "pixels"].is_pinned()
    assert (read.to("cuda", non_blocking=True).cpu() == plain.get(index)).all()
