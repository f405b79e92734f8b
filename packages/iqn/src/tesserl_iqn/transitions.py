"""Values of a fixed horizon: what the next ``H`` steps bring, so that a discount of 1 is finite.

The network sees a clock ``t``: how much of the horizon is behind it. An action is chosen at clock 0, where the whole
horizon lies ahead. Each transition is learned from at a random clock, and the horizon ends it like a terminal state
(Linesight's mini-races; Pardo et al. 2018, arXiv:1712.00378, section 3, on values that know the time that is left).
"""

from __future__ import annotations

import torch
from torch import Tensor


def end_at_horizon(
    partial_returns: Tensor, steps: Tensor, terminated: Tensor, clock: Tensor, horizon: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shorten multi-step transitions to what a fixed horizon has left.

    Args:
        partial_returns: discounted sums of the first 1, 2, ... n rewards, in reward units, ``[*B, n]``.
        steps: steps that a transition spans, int64 in [1, n], ``[*B]``.
        terminated: whether its last step ended the episode, bool, ``[*B]``.
        clock: steps of the horizon before its first step, int64 in [0, horizon), ``[*B]``.
        horizon: steps ``H`` that a value looks ahead, at least 1.

    Returns:
        The sum of the rewards within the horizon; the steps that it spans; whether nothing follows, because the episode
        or the horizon ended (``clock + steps >= horizon``); and the clock behind them, in (0, horizon]; each ``[*B]``.

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
    """Draw clocks, from torch's global generator.

    Args:
        num: how many.
        horizon: steps ``H``, at least 1.
        start_fraction: probability of clock 0, at which actions are chosen, beside its share of the rest, in [0, 1].
        device: where the clocks are wanted.

    Returns:
        Int64 in [0, horizon), ``[num]``: 0 with that probability, else uniform.
    """
    clock = torch.randint(horizon, (num,), device=device)
    return torch.where(torch.rand(num, device=device) < start_fraction, 0, clock)
