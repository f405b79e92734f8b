"""Change transitions before the loss reads them: the clock of a fixed horizon, and random crops of images.

Values of a fixed horizon sum the rewards of the next ``H`` steps, so they are finite at a discount of 1. The network
sees a clock ``t``, the number of elapsed steps of the horizon. Acting uses clock 0. Learning gives each transition a
random clock, and the end of the horizon counts as a terminal state (Linesight's mini-races; Pardo et al. 2018,
arXiv:1712.00378, section 3, on values that know the remaining time).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

from tesserl_nn_components import random_crop

Forward = Callable[[TensorDictBase], Any]
"""Function that reads a batch, writes ``td_error`` into it and returns losses, as ``IQNLoss`` does."""

Preparation = Callable[[TensorDictBase], None]
"""Function that replaces entries of a batch."""


def prepare_batches(forward: Forward, preparations: Sequence[Preparation]) -> Forward:
    """Return a function that calls ``forward`` on changed copies of batches and leaves the batches unchanged.

    Args:
        forward: reads a batch and writes ``td_error``, which is also written into the original batch.
        preparations: functions that each replace entries of a shallow copy of the batch.
    """
    if not preparations:
        return forward

    def prepare_and_forward(batch: TensorDictBase) -> TensorDictBase:
        prepared = batch.copy()
        for prepare in preparations:
            prepare(prepared)
        result = forward(prepared)
        batch["td_error"] = prepared["td_error"]
        return result

    return prepare_and_forward


def crop_pixels(batch: TensorDictBase, padding: int) -> None:
    """Shift the images of a batch at random, separately at both ends of a transition.

    Args:
        batch: has ``pixels`` and ``("next", "pixels")``, ``[B, C, H, W]``.
        padding: largest shift in pixels, at least 1; see `random_crop`.
    """
    for key in ("pixels", ("next", "pixels")):
        batch[key] = random_crop(batch[key], padding)


def set_clock(batch: TensorDictBase, horizon: int, start_fraction: float) -> None:
    """Set each transition to a random time of the horizon; its clock is the first feature of ``observation``.

    Args:
        batch: ``[B]``, with ``partial_returns`` of ``NStepWindow(keep_partial_returns=True)``.
        horizon: steps ``H`` that a value looks ahead, at least 1.
        start_fraction: probability that the clock is set to 0 instead of drawn uniformly, in [0, 1].
    """
    partial_returns = batch["partial_returns"]
    clock = sample_clock(len(batch), horizon, start_fraction=start_fraction, device=partial_returns.device)
    reward, steps, terminated, later = end_at_horizon(
        partial_returns,
        batch["steps_to_next_obs"].squeeze(-1),
        batch["next", "terminated"].squeeze(-1),
        clock,
        horizon,
    )
    for key, value in (("observation", clock), (("next", "observation"), later)):
        observation = batch[key].clone()
        observation[:, 0] = value / horizon
        batch[key] = observation
    batch["next", "reward"], batch["next", "terminated"] = reward.unsqueeze(-1), terminated.unsqueeze(-1)
    batch["steps_to_next_obs"] = steps.unsqueeze(-1)


def end_at_horizon(
    partial_returns: Tensor, steps: Tensor, terminated: Tensor, clock: Tensor, horizon: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shorten multi-step transitions to the remaining steps of a fixed horizon.

    Args:
        partial_returns: discounted sums of the first 1, 2, ... n rewards, in reward units, ``[*B, n]``.
        steps: steps that a transition spans, int64 in [1, n], ``[*B]``.
        terminated: whether its last step ended the episode, bool, ``[*B]``.
        clock: steps of the horizon before its first step, int64 in [0, horizon), ``[*B]``.
        horizon: steps ``H`` that a value looks ahead, at least 1.

    Returns:
        Four tensors ``[*B]``: the sum of the rewards within the horizon; the number of its steps; true if the episode
        or the horizon ended (``clock + steps >= horizon``); the clock after these steps, in (0, horizon].

    Raises:
        ValueError: ``horizon`` is below 1, or the shapes differ.
    """
    if horizon < 1 or not partial_returns.shape[:-1] == steps.shape == terminated.shape == clock.shape:
        raise ValueError(
            "horizon must be at least 1, and steps, terminated and clock must have the shape of partial_returns but "
            f"its last axis, got {horizon}, {tuple(steps.shape)}, {tuple(terminated.shape)}, {tuple(clock.shape)} and "
            f"{tuple(partial_returns.shape)}"
        )
    within = torch.minimum(steps, horizon - clock)
    reward = partial_returns.gather(-1, (within - 1).unsqueeze(-1)).squeeze(-1)
    return reward, within, terminated | (clock + steps >= horizon), clock + within


def sample_clock(
    num: int, horizon: int, *, start_fraction: float = 0.0, device: torch.device | str | None = None
) -> Tensor:
    """Draw clocks from torch's global generator.

    Args:
        num: number of clocks.
        horizon: steps ``H``, at least 1.
        start_fraction: probability that a clock is 0 (as when acting) instead of drawn uniformly, in [0, 1].
        device: device of the clocks.

    Returns:
        Int64 in [0, horizon), ``[num]``: 0 with that probability, else uniform.
    """
    clock = torch.randint(horizon, (num,), device=device)
    return torch.where(torch.rand(num, device=device) < start_fraction, 0, clock)
