"""Derive seeds from other seeds."""

from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from tesserl_environments.atari import AtariEnvironments
from tesserl_environments.envpool import EnvpoolEnvironments


def derived_seed(*entropy: int, key: tuple[int, ...] = ()) -> int:
    """Return a seed that depends on all given numbers.

    Args:
        entropy: seeds and counters, >= 0.
        key: identifies the purpose; different keys give independent seeds.

    Returns:
        A number in [0, 2**32).
    """
    return int(np.random.SeedSequence(entropy, spawn_key=key).generate_state(1)[0])


def worker_seeds(seed: int, environments: VectorEnv[Any, Any, Any], *, first: int = 0) -> list[int] | int:
    """Return one independent seed per environment, or a single seed if a natively vectorised task takes only one.

    Args:
        seed: seed of the run.
        environments: environments to reset with the result.
        first: index of the first of these environments in the run, if several workers share its environments.
    """
    seeds = [derived_seed(seed, key=(first + index,)) for index in range(environments.num_envs)]
    own = isinstance(environments, AtariEnvironments | EnvpoolEnvironments)
    return seeds if own or hasattr(environments, "call") else seeds[0]
