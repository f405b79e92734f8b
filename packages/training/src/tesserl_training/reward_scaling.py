"""Scale rewards by the standard deviation of the return."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tesserl_nn_components import RunningNormalizer
from tesserl_storage.fields import Fields

Update = Callable[[RunningNormalizer, Tensor], None]
"""Updates running statistics with features ``[*B, F]``."""


class RewardScaler:
    """Divides rewards by the standard deviation of the running discounted return.

    Engstrom et al. 2020 (arXiv:2005.12729), section 3, item 2: the running sum ``R <- discount R + r`` of each
    environment restarts at each episode; the mean is not subtracted. All sums are float64: with discount 1, ``R`` grows
    for a whole episode, and a float32 sum would stop growing at 1.7e7 times the reward.

    Args:
        discount: discount of one environment step, in [0, 1].
        clip: scaled rewards are clipped to ``[-clip, clip]``; None does not clip.
        update: updates the statistics; with several ranks it merges the data of all.
    """

    def __init__(
        self, discount: float, clip: float | None = 10.0, *, update: Update = RunningNormalizer.update
    ) -> None:
        self.discount, self.clip, self._update = discount, clip, update
        self._statistics = RunningNormalizer(1)
        self._running: Tensor | None = None

    @torch.no_grad()
    def __call__(self, reward: Tensor, done: Tensor) -> Tensor:
        """Add a rollout to the statistics and scale its rewards.

        Args:
            reward: in reward units, ``[N, T]``.
            done: whether the episode ended with the step, bool, ``[N, T]``.

        Returns:
            Rewards without unit, ``[N, T]``.
        """
        running = torch.zeros_like(reward[:, 0], dtype=torch.float64) if self._running is None else self._running
        returns = torch.empty_like(reward, dtype=torch.float64)
        for t, (rewards, ends) in enumerate(zip(reward.unbind(1), done.unbind(1), strict=True)):
            running = running * self.discount + rewards
            returns[:, t] = running
            running = running.masked_fill(ends, 0.0)
        self._running = running
        self._update(self._statistics, returns.reshape(-1, 1))
        scaled = reward * torch.rsqrt(self._statistics.variance + self._statistics.eps).to(reward.dtype)
        return scaled if self.clip is None else scaled.clamp(-self.clip, self.clip)

    def state_dict(self) -> dict[str, Any]:
        """Return the statistics and the running sums."""
        running = {} if self._running is None else {"running": self._running}
        return {"statistics": self._statistics.state_dict(), **running}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._statistics.load_state_dict(state["statistics"])
        running = state.get("running")
        if running is not None:  # version 0.1 wrote float32
            running = Fields(state, "rewards").tensor("running", (None,), running.dtype).double()
        self._running = running
