"""Copies between the memory of this machine and a device that make neither wait for the other.

On the CPU nothing is copied.
"""

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from torch import Tensor


class Uploads:
    """Copies tensors to a device through pinned memory that is used again.

    There are two sets of buffers: one is written while the copies from the other run. Writing waits only if the device
    is more than one batch behind.

    Args:
        device: to which the tensors go.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._sets = [_PinnedBuffers(self.device), _PinnedBuffers(self.device)]

    def __call__(self, tensors: Mapping[NestedKey, Tensor]) -> dict[NestedKey, Tensor]:
        """Return tensors on the device.

        Args:
            tensors: by name; those that are on the device already are returned as they are.
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
        device = next(iter(leaves.values())).device  # with its index, which the name of the device may lack
        return TensorDict(leaves, batch.batch_size, device=device)


class _PinnedBuffers:
    """Pinned memory for one tensor of each name."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._memory: dict[NestedKey, Tensor] = {}
        self._copied: Any = None  # event after the last copy from here

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
        """Return memory in the shape of a tensor; larger memory is made if what there is does not suffice."""
        memory = self._memory.get(name)
        if memory is None or memory.dtype != tensor.dtype or memory.numel() < tensor.numel():
            memory = self._memory[name] = torch.empty(tensor.numel(), dtype=tensor.dtype, pin_memory=True)
        return memory[: tensor.numel()].view(tensor.shape)


class Download:
    """A copy of a tensor to the CPU that its device makes when it has computed the tensor.

    Args:
        tensor: on any device; one on the CPU is not copied.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._tensor, self._copied = tensor.detach(), None
        if tensor.device.type != "cpu":
            copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._tensor = copy.copy_(self._tensor, non_blocking=True)
            self._copied = recorded_event(tensor.device)

    def result(self) -> Tensor:
        """Return the copy; wait until it is complete, but not for work that was begun after it."""
        if self._copied is not None:
            self._copied.synchronize()
            self._copied = None
        return self._tensor


def recorded_event(device: torch.device) -> Any:
    """Return an event that happens when a device has done the work that it was given so far."""
    event = torch.get_device_module(device).Event()
    event.record()
    return event
