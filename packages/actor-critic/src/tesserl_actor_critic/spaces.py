"""Read action spaces of Gymnasium and torchrl without importing either library."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class DiscreteActions:
    """Discrete actions: one choice, or several choices per action.

    Attributes:
        nvec: number of options of each choice, ``N`` entries.
        scalar: whether an action is one category ``[*B]`` instead of ``[*B, N]``; then ``N`` is 1.
    """

    nvec: tuple[int, ...]
    scalar: bool

    @property
    def num_blocks(self) -> int | None:
        """Number ``N`` of choices if all have equally many options; None otherwise, and for a scalar action."""
        return len(self.nvec) if not self.scalar and len(set(self.nvec)) == 1 else None


@dataclass(frozen=True)
class ContinuousActions:
    """Continuous actions: vectors of real numbers.

    Attributes:
        low: lower bound of each dimension, float32 ``[D]``; -inf for an unbounded dimension.
        high: upper bound of each dimension, float32 ``[D]``; inf for an unbounded dimension.
    """

    low: Tensor
    high: Tensor

    @property
    def is_bounded(self) -> bool:
        """Return whether every dimension has both bounds."""
        return bool(self.low.isfinite().all() and self.high.isfinite().all())


def read_action_space(space: Any) -> DiscreteActions | ContinuousActions:
    """Return the description of an action space that a network needs.

    Args:
        space: number of categories; a Gymnasium ``Discrete``, ``MultiDiscrete`` or ``Box``; or a torchrl
            ``Categorical``, ``MultiCategorical``, ``Bounded`` or ``Unbounded`` without batch dimensions.

    Returns:
        The numbers of options of its choices, or its bounds.

    Raises:
        TypeError: the space is of another kind.
        ValueError: the space is empty, batched, a Box of integers, or does not count from 0.
    """
    if isinstance(space, _spec_class("OneHot")):
        raise TypeError(
            f"action_space must number its actions, got {type(space).__name__}; build the environment with "
            "categorical_action_encoding=True"
        )
    if isinstance(space, int) and not isinstance(space, bool):
        return _discrete(space, (space,), scalar=True)
    start = getattr(space, "start", None)
    if start is not None and bool(torch.as_tensor(start, device="cpu").any()):
        raise ValueError(f"actions must count from 0, got {space}; subtract its start in the environment")
    shape = tuple(getattr(space, "shape", None) or ())
    if getattr(space, "nvec", None) is not None:
        if len(shape) != 1:
            raise ValueError(_one_dimension(space, shape))
        return _discrete(space, tuple(int(options) for options in space.nvec), scalar=False)
    if getattr(space, "n", None) is not None and (isinstance(space, _spec_class("TensorSpec")) or shape == ()):
        if shape != ():
            raise ValueError(_one_dimension(space, shape))
        return _discrete(space, (int(space.n),), scalar=True)
    bounds = space.space if isinstance(space, _spec_class("TensorSpec")) else space
    if not hasattr(bounds, "low") or not hasattr(bounds, "high"):
        raise TypeError(
            "action_space must be a number of actions, a Discrete, MultiDiscrete or Box, or a torchrl Categorical, "
            f"MultiCategorical, Bounded or Unbounded, got {space!r}"
        )
    return _continuous(space, shape, bounds.low, bounds.high)


def _spec_class(name: str) -> Any:
    """Return a class of torchrl's specs; an empty tuple if torchrl was not imported, as no instance can exist then."""
    specs = sys.modules.get("torchrl.data")
    return () if specs is None else (getattr(specs, name),)


def _discrete(space: Any, nvec: tuple[int, ...], *, scalar: bool) -> DiscreteActions:
    if not nvec or min(nvec) < 1:
        raise ValueError(f"action_space must have at least one action in each choice, got {space!r}")
    return DiscreteActions(nvec, scalar)


def _continuous(space: Any, shape: tuple[int, ...], low: Any, high: Any) -> ContinuousActions:
    low, high = torch.as_tensor(low, device="cpu"), torch.as_tensor(high, device="cpu")
    if not low.is_floating_point():
        raise ValueError(f"a space with bounds must be of real numbers, got {space!r}; use a Discrete for categories")
    if len(shape) != 1 or shape[0] < 1:
        raise ValueError(_one_dimension(space, shape))
    largest = torch.finfo(torch.float32).max  # torchrl's Unbounded has the largest float32 as its bounds
    low, high = low.to("cpu", torch.float32), high.to("cpu", torch.float32)
    return ContinuousActions(low.masked_fill(low <= -largest, -torch.inf), high.masked_fill(high >= largest, torch.inf))


def _one_dimension(space: Any, shape: tuple[int, ...]) -> str:
    return (
        f"the shape of one action must be () for a single choice and (N,) for several or for real numbers, got "
        f"{shape} in {space!r}; flatten actions, and pass the space of one environment (env.action_spec_unbatched)"
    )
