"""Asynchronous copies between CPU memory and a device.

If the device is the CPU, nothing is copied.
"""

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from torch import Tensor


class Uploads:
    """Copy tensors to a device through reused pinned memory.

    There are two sets of buffers: one is written while the device copies from the other. Writing waits only if the
    device is more than one batch behind.

    Args:
        device: destination.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._sets = [_PinnedBuffers(self.device), _PinnedBuffers(self.device)]

    def __call__(self, tensors: Mapping[NestedKey, Tensor]) -> dict[NestedKey, Tensor]:
        """Return tensors on the device.

        Args:
            tensors: tensors by name; those that are on the device already are returned unchanged.
        """
        if self.device.type == "cpu":
            return dict(tensors)
        buffers, following = self._sets
        self._sets = [following, buffers]
        return buffers.upload(tensors)

    def batch(self, batch: TensorDictBase) -> TensorDictBase:
        """Return a batch on the device."""
        if self.device.type == "cpu":
            return batch
        leaves = self(dict(batch.items(include_nested=True, leaves_only=True)))
        device = next(iter(leaves.values())).device  # includes the device index, which the given device may lack
        return TensorDict(leaves, batch.batch_size, device=device)


class _PinnedBuffers:
    """Pinned memory for one tensor of each name."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._memory: dict[NestedKey, Tensor] = {}
        self._copied: Any = None  # event after the last copy from these buffers

    def upload(self, tensors: Mapping[NestedKey, Tensor]) -> dict[NestedKey, Tensor]:
        if self._copied is not None:
            self._copied.synchronize()
        moved = {name: self._move(name, tensor) for name, tensor in tensors.items()}
        self._copied = recorded_event(self._device)
        return moved

    def _move(self, name: NestedKey, tensor: Tensor) -> Tensor:
        if tensor.device.type != "cpu":
            return tensor.to(self._device)
        if not tensor.is_pinned():  # a `FrameStorage` pins what it returns
            tensor = self._room(name, tensor).copy_(tensor)
        return tensor.to(self._device, non_blocking=True)

    def _room(self, name: NestedKey, tensor: Tensor) -> Tensor:
        """Return memory in the shape of a tensor; allocate more if the existing memory is too small."""
        memory = self._memory.get(name)
        if memory is None or memory.dtype != tensor.dtype or memory.numel() < tensor.numel():
            memory = self._memory[name] = torch.empty(tensor.numel(), dtype=tensor.dtype, pin_memory=True)
        return memory[: tensor.numel()].view(tensor.shape)


class Download:
    """An asynchronous copy of a tensor to the CPU; the device makes it once it has computed the tensor.

    Args:
        tensor: tensor on any device; a tensor on the CPU is not copied.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._tensor, self._copied = tensor.detach(), None
        if tensor.device.type != "cpu":
            copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._tensor = copy.copy_(self._tensor, non_blocking=True)
            self._copied = recorded_event(tensor.device)

    def result(self) -> Tensor:
        """Wait until the copy is complete and return it; do not wait for work queued after it."""
        if self._copied is not None:
            self._copied.synchronize()
            self._copied = None
        return self._tensor


def recorded_event(device: torch.device) -> Any:
    """Return an event that completes when a device has finished all work queued so far."""
    event = torch.get_device_module(device).Event()
    event.record()
    return event
