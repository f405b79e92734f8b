"""Greedy episodes of a peer's policy, by the protocol of ``tesserl_trainer``: one episode for each seed."""

from collections.abc import Callable, Sequence

import gymnasium as gym
import numpy as np

FINAL_SEEDS = 1_000_000  # added to the evaluation seed, so that reported returns use seeds unused in selection


def play(
    choose: Callable[[np.ndarray], np.ndarray],
    make: Callable[[], gym.Env],
    seeds: Sequence[int],
    max_steps: int | None,
) -> list[float]:
    """Undiscounted returns in the seeds' order; all episodes run side by side, each in an environment of its own."""
    environments = [make() for _ in seeds]
    observations = [environment.reset(seed=seed)[0] for environment, seed in zip(environments, seeds, strict=True)]
    returns, steps, playing = [0.0] * len(seeds), 0, list(range(len(seeds)))
    while playing:
        actions = choose(np.stack([observations[index] for index in playing]))
        steps += 1
        ended = set()
        for index, action in zip(playing, actions, strict=True):
            observations[index], reward, terminated, truncated, _ = environments[index].step(action)
            returns[index] += float(reward)
            if terminated or truncated or steps == max_steps:
                ended.add(index)
        playing = [index for index in playing if index not in ended]
    for environment in environments:
        environment.close()
    return returns
