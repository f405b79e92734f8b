"""``environment:`` -> a Gymnasium vector environment."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import TimeLimit

from tesserl_configs import ConfigError
from tesserl_trainer.run.main_guard import refuse_to_run_again
from tesserl_trainer.run.processes import describe
from tesserl_trainer.run.resumable import Resumable
from tesserl_trainer.run.starts import RestoredStarts
from tesserl_trainer.run.task import Checked
from tesserl_trainer.run.workers import WorkerEnvironments, closed_afterwards
from tesserl_trainer.wiring import wrappers
from tesserl_trainer.wiring.atari import AtariEnvironments
from tesserl_trainer.wiring.envpool import EnvpoolEnvironments, atari_options, task_name

Environment = gym.Env[Any, Any]
Environments = VectorEnv[Any, Any, Any]
Space = spaces.Space[Any]
Maker = Callable[[], Environment]
Made = TypeVar("Made")

REWARD_WRAPPERS = ("reward_scale", "reward_clip")
"""Wrappers of training only: an evaluation reports the task's own rewards."""

WHOLE_GAMES = {"episodic_life": False, "life_loss_info": False, "reward_clipping": False}
"""Options of Atari games in evaluation, for the same reason."""

FASTER = {"gymnasium.envs.box2d.car_racing:CarRacing": "tesserl_trainer.wiring.car_racing:CarRacing"}
"""Entry points of tasks, and of the same tasks in less time."""


def make_environments(
    config: Any,
    num_envs: int,
    *,
    evaluation: bool = False,
    groups: bool = False,
    restorable: bool = False,
    max_length: int | None = None,
) -> Environments:
    """Make the vector environment of an ``environment:`` block.

    Args:
        config: the block.
        num_envs: number of sub-environments.
        evaluation: without what changes rewards and cuts games short, resetting only when told to; a task's own
            vectorised form is replaced by single environments in this process.
        groups: resetting only when told to; every episode's start is given to it.
        restorable: a reset can put an environment into a given state.
        max_length: steps after which an episode is truncated at the latest; None: where the task does.

    Returns:
        Environments in SAME_STEP mode (DISABLED for evaluation and for groups), or in their own mode where they are
        natively vectorised by an entry point or by envpool.

    Raises:
        ConfigError: the id is unknown, its package is missing, or it does not take the given arguments.
        WorkerError: a worker died, or did not make its environment in time.
    """
    refuse_to_run_again()
    if config.vectorization == "envpool":
        return _made(config, lambda: _pools(config, num_envs, not (evaluation or groups), max_length))
    spec = _spec(config)
    mode = AutoresetMode.DISABLED if evaluation or groups else AutoresetMode.SAME_STEP
    if config.vectorization == "atari":
        return _games(config, spec, num_envs, mode, evaluation, max_length)
    if config.vectorization == "vector_entry_point" and not evaluation:
        return _made(config, lambda: gym.make_vec(config.id, num_envs, "vector_entry_point", **config.kwargs))
    change = partial(_wrapped, config, evaluation=evaluation, restorable=restorable, max_length=max_length)
    resumable = mode is AutoresetMode.SAME_STEP
    makers = [_maker(config, spec, index, change, resumable=resumable) for index in range(num_envs)]
    environments = _made(config, lambda: _vectorized(config, makers, mode))
    environments.spec = spec
    return environments


def task_spaces(config: Any) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
    """Return the observation and the action space of one environment of an ``environment:`` block.

    With vectorization async a process of its own makes the environment, as it makes those of training.

    Args:
        config: the block.

    Raises:
        ConfigError: see ``make_environments``.
        WorkerError: the process died, or did not make the environment in time.
    """
    if config.vectorization == "async":
        maker = _maker(config, _spec(config), 0, partial(_wrapped, config, evaluation=True), resumable=False)
        made = _made(config, lambda: describe(maker, timeout=config.start_timeout, passed_on=(ConfigError,)))
        return made.observation_space, made.action_space
    with closed_afterwards(make_environments(config, 1, evaluation=True)) as environments:
        return environments.single_observation_space, environments.single_action_space


def _spec(config: Any) -> EnvSpec:
    register(config.id)
    spec = copy(_made(config, lambda: gym.spec(config.id)))
    # the two wrappers that only find mistakes of whoever steps an environment by hand cost 5 % of a CartPole step
    spec.disable_env_checker, spec.order_enforce = True, False
    spec.entry_point = FASTER.get(str(spec.entry_point), spec.entry_point)
    return spec


def _vectorized(config: Any, makers: Sequence[Maker], mode: AutoresetMode) -> Environments:
    if config.vectorization != "async":
        return SyncVectorEnv(makers, copy=False, autoreset_mode=mode)
    return WorkerEnvironments(
        makers,
        timeout=config.worker_timeout,
        start_timeout=config.start_timeout,
        passed_on=(ConfigError,),
        autoreset_mode=mode,
    )


def _maker(
    config: Any, spec: EnvSpec, index: int, change: Callable[[Environment], Environment], *, resumable: bool
) -> Maker:
    """Return what makes one environment, in this process or in a worker's."""
    worker = " worker" if config.vectorization == "async" else ""
    label = f"environment{worker} {index} of {config.id}"

    def make() -> Environment:
        _need_no_display()
        environment = _made(config, lambda: change(gym.make(spec, **config.kwargs)))
        checked = Checked(environment, label)
        return Resumable(checked, index) if resumable else checked

    return make


def _need_no_display() -> None:
    """Let SDL draw into memory where there is no screen; it complains on standard error about a missing one."""
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def _wrapped(
    config: Any,
    environment: Environment,
    *,
    evaluation: bool,
    restorable: bool = False,
    max_length: int | None = None,
) -> Environment:
    environment = RestoredStarts(environment) if restorable else environment
    for wrapper in config.wrappers:
        if not (evaluation and wrapper.kind in REWARD_WRAPPERS):
            environment = wrappers.wrap(environment, wrapper, config.channels)
    return environment if max_length is None else TimeLimit(environment, max_length)


def _games(
    config: Any, spec: EnvSpec, num_envs: int, mode: AutoresetMode, evaluation: bool, max_length: int | None
) -> AtariEnvironments:
    """Make the games of ale_py."""
    options = config.atari.model_dump() | (WHOLE_GAMES if evaluation else {})
    if max_length is not None:  # ale_py counts frames, the idle ones at the start among them
        longest = max_length * config.atari.frameskip
        options["max_num_frames_per_episode"] = min(options["max_num_frames_per_episode"], longest)
    environments = AtariEnvironments(_game(config, spec), num_envs, autoreset_mode=mode, **options)
    environments.spec = spec
    return environments


def _pools(config: Any, num_envs: int, resets_itself: bool, max_length: int | None) -> EnvpoolEnvironments:
    """Return envpool's environments; those that do not reset themselves play whole games."""
    mode = AutoresetMode.NEXT_STEP if resets_itself else AutoresetMode.DISABLED
    options = config.kwargs
    if config.has_atari:
        options = atari_options(config.atari if resets_itself else config.atari.model_copy(update=WHOLE_GAMES))
    return EnvpoolEnvironments(task_name(config.id), num_envs, autoreset_mode=mode, max_length=max_length, **options)


def _game(config: Any, spec: EnvSpec) -> str:
    """Name of the ROM of an Atari task."""
    if "game" not in spec.kwargs:
        raise ConfigError(
            f"environment.id: vectorization atari plays ALE/<Game>-v5, got {config.id}; choose vectorization sync"
        )
    return str(spec.kwargs["game"])


def has_time_limit(config: Any) -> bool:
    """Return whether every episode of a task ends after some number of steps, as far as its registration says.

    Args:
        config: the ``environment:`` block.

    Raises:
        ConfigError: the id is unknown.
    """
    if config.vectorization in ("atari", "envpool") or any(each.kind == "time_limit" for each in config.wrappers):
        return True
    register(config.id)
    steps = config.kwargs.get("max_episode_steps")  # an argument of gym.make
    if steps is None:
        steps = _made(config, lambda: gym.spec(config.id)).max_episode_steps
    return steps is not None and steps > 0


def register(environment_id: str) -> None:
    """Register the namespaces that do not register themselves.

    Raises:
        ConfigError: the package of the namespace is not installed.
    """
    namespace = environment_id.split("/")[0] if "/" in environment_id else ""
    if namespace == "MinAtar" and f"{namespace}/Breakout-v1" not in gym.registry:
        _require("minatar", "MinAtar", environment_id, extra="minatar")
        importlib.import_module("minatar.gym").register_envs()
    if namespace == "ALE":
        _require("ale_py", "ale_py", environment_id, extra="atari")
        importlib.import_module("ale_py")


def _require(module: str, name: str, environment_id: str, *, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ConfigError(f'environment.id: {environment_id} needs {name}; install "tesserl-trainer[{extra}]"')


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
    except Exception as error:
        if isinstance(error, MemoryError) or type(error).__module__.startswith("tesserl_"):
            raise
        said = f"{type(error).__name__}: {error}"
        key = "environment.kwargs" if config.kwargs else "environment.id"
        raise ConfigError(f"{key}: {config.id} cannot be made with {config.kwargs}: {said}") from error


def worker_seeds(seed: int, environments: Environments) -> list[int] | int:
    """One independent seed for each environment of a run; a single one where only the task's own form takes it."""
    children = np.random.SeedSequence(seed).spawn(environments.num_envs)
    seeds = [int(child.generate_state(1)[0]) for child in children]
    own = isinstance(environments, AtariEnvironments | EnvpoolEnvironments)
    return seeds if own or hasattr(environments, "call") else seeds[0]


def discrete_actions(space: spaces.Space[Any]) -> tuple[int, int | None]:
    """Return the number of actions, and the number of blocks if an action is a block of equal choices.

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
