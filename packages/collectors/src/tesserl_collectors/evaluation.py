"""Evaluation with its own environments, seeds and random numbers, separate from training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from tesserl_collectors.collector import Act, Start
from tesserl_collectors.transfers import Uploads
from tesserl_environments import Boundary, ObservationLayout, autoreset_mode


@dataclass(frozen=True)
class Evaluation:
    """Undiscounted returns and lengths in steps, one per seed, in the order of the seeds."""

    returns: list[float]
    lengths: list[int]

    @property
    def return_mean(self) -> float:
        """Mean return; NaN or infinite if any return is."""
        with np.errstate(invalid="ignore"):
            return float(np.mean(self.returns))

    @property
    def return_std(self) -> float:
        """Population standard deviation of the returns."""
        with np.errstate(invalid="ignore"):
            return float(np.std(self.returns))


def evaluate_policy(
    policy: Act,
    environments: VectorEnv[Any, Any, Any],
    layout: ObservationLayout,
    seeds: Sequence[int],
    *,
    max_episode_steps: int,
    device: torch.device | str = "cpu",
    on_start: Start | None = None,
    on_step: Callable[[], None] | None = None,
    on_episode: Callable[[float], None] | None = None,
) -> Evaluation:
    """Play one episode per seed.

    Args:
        policy: maps one tensor ``[N, ...]`` per key to actions ``[N, ...]``.
        environments: environments in DISABLED autoreset mode. The episode of a seed is the same in each of them.
        layout: converts their observations to keys.
        seeds: one per episode.
        max_episode_steps: largest length; a longer episode is stopped there and counts with its return so far.
        device: device of the policy.
        on_start: called with flags of environments that begin an episode, for policies with a memory.
        on_step: called before each step, when the environments still show the states that the policy observes.
        on_episode: called with the return of each episode that ends.

    Raises:
        TaskError: an environment raised an error, or returned NaN or a value outside of its spaces.
        ValueError: the environments reset themselves.
    """
    if autoreset_mode(environments) is not AutoresetMode.DISABLED:
        raise ValueError(
            f"evaluation environments: expected autoreset mode DISABLED, got {autoreset_mode(environments).value}; "
            "episodes start when their seed is due"
        )
    boundary, upload, num_envs = Boundary(environments, layout), Uploads(device), environments.num_envs
    observations, episodes = layout.empty(num_envs), _Episodes(seeds, num_envs, on_episode)
    boundary.reset(observations, seed=episodes.due())
    if on_start is not None:
        on_start(np.ones(num_envs, np.bool_))
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seeds[0])
        while episodes.are_left():
            if on_step is not None:
                on_step()
            boundary.require_allowed(observations)
            inputs = upload({key: torch.from_numpy(observations[key]) for key in layout.keys}).values()
            reward, terminated, truncated, _ = boundary.step(policy(*inputs).cpu().numpy(), observations)
            boundary.require_finite(observations, reward)
            episodes.count(reward)
            ended = terminated | truncated | (episodes.steps >= max_episode_steps)
            if ended.any():
                episodes.end(ended)
                if not episodes.are_left():
                    break
                boundary.reset(observations, seed=episodes.due(), options={"reset_mask": ended})
                if on_start is not None:
                    on_start(ended)
    return Evaluation(episodes.returns, episodes.lengths)


class _Episodes:
    """Assignment of seeds to environments, and the results of the episodes."""

    def __init__(self, seeds: Sequence[int], num_envs: int, on_episode: Callable[[float], None] | None) -> None:
        self.returns, self.lengths = [0.0] * len(seeds), [0] * len(seeds)
        self.sums, self.steps = np.zeros(num_envs), np.zeros(num_envs, np.int64)
        self._seeds, self._on_episode = seeds, on_episode
        self._playing = [i if i < len(seeds) else None for i in range(num_envs)]  # index of the seed
        self._upcoming = num_envs

    def are_left(self) -> bool:
        return any(seed is not None for seed in self._playing)

    def due(self) -> Any:
        """Return one seed per environment, including idle environments."""
        return [self._seeds[i or 0] for i in self._playing]

    def count(self, reward: NDArray[Any]) -> None:
        self.sums += reward
        self.steps += 1

    def end(self, ended: NDArray[np.bool_]) -> None:
        """Store the results of the episodes that ended, and assign the next seeds to their environments."""
        for slot in np.flatnonzero(ended).tolist():
            if (seed := self._playing[slot]) is not None:
                self.returns[seed], self.lengths[seed] = float(self.sums[slot]), int(self.steps[slot])
                if self._on_episode is not None:
                    self._on_episode(self.returns[seed])
                self._playing[slot] = self._upcoming if self._upcoming < len(self._seeds) else None
                self._upcoming += 1
        self.sums[ended], self.steps[ended] = 0.0, 0
