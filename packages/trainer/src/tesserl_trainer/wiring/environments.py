"""``environment:`` -> a Gymnasium vector environment."""

import importlib
import importlib.util
from collections.abc import Callable
from copy import copy
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from tesserl_configs import ConfigError
from tesserl_trainer.run.resumable import Resumable
from tesserl_trainer.wiring import wrappers

Environments = VectorEnv[Any, Any, Any]
Made = TypeVar("Made")

REWARD_WRAPPERS = ("reward_scale", "reward_clip")
"""Wrappers of training only: an evaluation reports the task's own rewards."""


def make_environments(config: Any, num_envs: int, *, evaluation: bool = False) -> Environments:
    """Makes the vector environment of an ``environment:`` block.

    Args:
        config: the block.
        num_envs: number of sub-environments.
        evaluation: without the wrappers that change rewards, in this process, resetting only when told to.

    Returns:
        Environments in SAME_STEP mode (DISABLED for evaluation), or in their own mode where they are natively
        vectorised.

    Raises:
        ConfigError: the id is unknown, its package is missing, or it does not take the given arguments.
    """
    register(config.id)
    spec = copy(_made(config, lambda: gym.spec(config.id)))
    # the two wrappers that only find mistakes of whoever steps an environment by hand cost 5 % of a CartPole step
    spec.disable_env_checker, spec.order_enforce = True, False
    if config.vectorization == "vector_entry_point" and not evaluation:
        return _made(config, lambda: gym.make_vec(config.id, num_envs, "vector_entry_point", **config.kwargs))

    def make(index: int) -> Callable[[], gym.Env[Any, Any]]:
        def make_one() -> gym.Env[Any, Any]:
            environment = gym.make(spec, **config.kwargs)
            for wrapper in config.wrappers:
                if not (evaluation and wrapper.kind in REWARD_WRAPPERS):
                    environment = wrappers.wrap(environment, wrapper)
            return environment if evaluation else Resumable(environment, index)

        return make_one

    makers = [make(index) for index in range(num_envs)]
    if evaluation:
        return _made(config, lambda: SyncVectorEnv(makers, copy=False, autoreset_mode=AutoresetMode.DISABLED))
    if config.vectorization == "async":
        return _made(config, lambda: AsyncVectorEnv(makers, copy=False, autoreset_mode=AutoresetMode.SAME_STEP))
    return _made(config, lambda: SyncVectorEnv(makers, copy=False, autoreset_mode=AutoresetMode.SAME_STEP))


def register(environment_id: str) -> None:
    """Registers the namespaces that do not register themselves.

    Raises:
        ConfigError: the package of the namespace is not installed.
    """
    namespace = environment_id.split("/")[0] if "/" in environment_id else ""
    if namespace == "MinAtar" and f"{namespace}/Breakout-v1" not in gym.registry:
        if importlib.util.find_spec("minatar") is None:
            raise ConfigError(f'environment.id: {environment_id} needs MinAtar; install "tesserl-trainer[minatar]"')
        importlib.import_module("minatar.gym").register_envs()


def _made(config: Any, make: Callable[[], Made]) -> Made:
    try:
        return make()
    except gym.error.DependencyNotInstalled as error:
        raise ConfigError(
            f"environment.id: {config.id} needs a package that is not installed ({error}); "
            'for Box2D tasks install "tesserl-trainer[box2d]"'
        ) from error
    except gym.error.Error as error:
        raise ConfigError(f"environment.id: {error}") from error
    except TypeError as error:
        raise ConfigError(f"environment.kwargs: {config.id} does not take {config.kwargs}: {error}") from error


def worker_seeds(seed: int, environments: Environments) -> list[int] | int:
    """One independent seed for each environment of a run; a single one where they are natively vectorised."""
    children = np.random.SeedSequence(seed).spawn(environments.num_envs)
    seeds = [int(child.generate_state(1)[0]) for child in children]
    return seeds if hasattr(environments, "call") else seeds[0]


def discrete_actions(space: spaces.Space[Any]) -> tuple[int, int | None]:
    """Number of actions, and of blocks where an action is a block of equal choices.

    Returns:
        ``(A, None)`` for Discrete(A); ``(A, N)`` for MultiDiscrete with N equal entries A.

    Raises:
        ConfigError: the space is another one.
    """
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return int(space.n), None
    if isinstance(space, spaces.MultiDiscrete) and len(space.shape) == 1 and len(set(space.nvec.tolist())) == 1:
        return int(space.nvec[0]), len(space.nvec)
    raise ConfigError(
        f"environment.id: iqn needs a Discrete action space that starts at 0, or a MultiDiscrete one of equal "
        f"entries, got {space}; use another task or discretise it in a wrapper"
    )
