"""Normalise rewards by the standard deviation of returns."""

import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym

from tesserl_environments.errors import EnvironmentArgumentError

EPSILON = 1e-8
"""Added to the variance, to avoid a division by zero."""


class NormalizeReward(gym.Wrapper[Any, Any, Any, Any]):
    """Divide rewards by the standard deviation of a running discounted return.

    Engstrom et al. 2020 (arXiv:2005.12729), section 3, item 2: the running sum ``R <- discount R + r`` restarts with
    each episode, and its mean is not subtracted. The statistics cover all steps of this environment, in float64
    (Welford 1962). They survive a reset, and ``snapshot`` saves them. The first reward is not divided.

    Args:
        environment: the environment.
        discount: discount per step, in [0, 1].
        clip: normalised rewards are clipped to ``[-clip, clip]``, above 0; None for no clipping.

    Raises:
        EnvironmentArgumentError: an argument is out of its range.
    """

    def __init__(self, environment: gym.Env[Any, Any], *, discount: float = 0.99, clip: float | None = 10.0) -> None:
        if not 0 <= discount <= 1 or (clip is not None and not clip > 0):
            raise EnvironmentArgumentError(
                "wrappers: normalize_reward needs a discount in [0, 1] and a clip above 0 or none, got "
                f"discount {discount} and clip {clip}"
            )
        super().__init__(environment)
        self._discount, self._clip = discount, clip
        self._count, self._mean, self._squares, self._running = 0, 0.0, 0.0, 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment and the running sum."""
        self._running = 0.0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step the environment and normalise the reward."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._running = self._discount * self._running + float(reward)
        self._count += 1
        before = self._running - self._mean
        self._mean += before / self._count
        self._squares += before * (self._running - self._mean)
        normalised = float(reward)
        if self._count > 1:
            normalised /= math.sqrt(self._squares / self._count + EPSILON)
        if self._clip is not None:
            normalised = min(max(normalised, -self._clip), self._clip)
        return observation, normalised, terminated, truncated, info

    def carried(self) -> dict[str, Any]:
        """Return the statistics, for a snapshot."""
        return {"count": self._count, "mean": self._mean, "squares": self._squares}

    def carry(self, state: Mapping[str, Any]) -> None:
        """Continue from ``carried``."""
        self._count, self._mean, self._squares = state["count"], state["mean"], state["squares"]
