"""Evaluation apart from training: environments, seeds and random numbers of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv

from tesserl_collectors.collector import Act, Start
from tesserl_collectors.transfers import Uploads
from tesserl_environments import Boundary, ObservationLayout, autoreset_mode


@dataclass(frozen=True)
class Evaluation:
    """Undiscounted returns and lengths (in steps), one for each seed, in the seeds' order."""

    returns: list[float]
    lengths: list[int]

    @property
    def return_mean(self) -> float:
        """Mean return; NaN or infinite if a return is."""
        with np.errstate(invalid="ignore"):
            return float(np.mean(self.returns))

    @property
    def return_std(self) -> float:
        """Standard deviation of the returns over the episodes (population form)."""
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
    """Play one episode for each seed.

    Args:
        policy: from one tensor ``[N, ...]`` per key to actions ``[N, ...]``.
        environments: in DISABLED autoreset mode. Which of them plays a seed does not change the episode.
        layout: how their observations become keys.
        seeds: one for each episode.
        max_episode_steps: an episode that takes longer is cut there and counts with what it has.
        device: where the policy lives.
        on_start: told which environments begin an episode; for policies with a memory.
        on_step: called before each step, while the environments still show what the policy sees.
        on_episode: called with the return of each episode that ends.

    Raises:
        TaskError: an environment raised an error, or returned something that its spaces do not allow, or NaN.
        ValueError: the environments reset themselves.
    """
    if autoreset_mode(environments) is not AutoresetMode.DISABLED:
        raise ValueError(
            f"evaluation environments: expected autoreset mode DISABLED, got {autoreset_mode(environments).value}; "
            "episodes start when their seed is due"
        )
    boundary, num_envs, upload = Boundary(environments, layout), environments.num_envs, Uploads(device)
    observations = layout.empty(num_envs)
    playing = np.full(num_envs, -1)  # position of the seed that an environment plays; -1: none any more
    playing[: len(seeds)] = np.arange(min(num_envs, len(seeds)))
    upcoming = num_envs
    sums, steps = np.zeros(num_envs), np.zeros(num_envs, np.int64)
    returns, lengths = [0.0] * len(seeds), [0] * len(seeds)
    due: Any = [seeds[max(i, 0)] for i in playing.tolist()]  # one for each environment, also for one that idles
    boundary.reset(observations, seed=due)
    if on_start is not None:
        on_start(np.ones(num_envs, np.bool_))
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seeds[0])
        while (playing >= 0).any():
            if on_step is not None:
                on_step()
            boundary.require_allowed(observations)
            inputs = upload({key: torch.from_numpy(observations[key]) for key in layout.keys}).values()
            reward, terminated, truncated, _ = boundary.step(policy(*inputs).cpu().numpy(), observations)
            boundary.require_finite(observations, reward)
            sums += reward
            steps += 1
            ended = terminated | truncated | (steps >= max_episode_steps)
            if ended.any():
                for i in np.flatnonzero(ended).tolist():
                    if playing[i] >= 0:
                        returns[playing[i]], lengths[playing[i]] = float(sums[i]), int(steps[i])
                        if on_episode is not None:
                            on_episode(float(sums[i]))
                        playing[i] = upcoming if upcoming < len(seeds) else -1
                        upcoming += 1
                if (playing < 0).all():
                    break
                sums[ended], steps[ended] = 0.0, 0
                due = [seeds[max(i, 0)] for i in playing.tolist()]
                boundary.reset(observations, seed=due, options={"reset_mask": ended})
                if on_start is not None:
                    on_start(ended)
    return Evaluation(returns, lengths)
