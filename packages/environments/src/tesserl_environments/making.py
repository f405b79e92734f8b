"""Make vector environments from a Gymnasium id and plain arguments."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import gymnasium as gym
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers import TimeLimit

from tesserl_environments.atari import AtariEnvironments
from tesserl_environments.cart_pole import CartPoleEnvironments
from tesserl_environments.checked import Checked
from tesserl_environments.envpool import EnvpoolEnvironments, task_name
from tesserl_environments.errors import EnvironmentArgumentError
from tesserl_environments.main_guard import refuse_to_run_again
from tesserl_environments.plain_spaces import with_plain_spaces
from tesserl_environments.processes import describe
from tesserl_environments.registration import Environment, made, task_spec
from tesserl_environments.snapshots import Resumable
from tesserl_environments.starts import RestoredStarts
from tesserl_environments.sync import SyncEnvironments
from tesserl_environments.workers import WorkerEnvironments, closed_afterwards

Environments = VectorEnv[Any, Any, Any]
Space = spaces.Space[Any]
Wrap = Callable[[Environment], Environment]
Vectorization = Literal["sync", "async", "vector_entry_point", "atari", "envpool"]
Maker = Callable[[], Environment]

FASTER = {"gymnasium.envs.box2d.car_racing:CarRacing": "tesserl_environments.car_racing:CarRacing"}
"""Entry points of tasks, and of the same tasks in less time."""

AT_ONCE = {"CartPole-v0", "CartPole-v1"}
"""Tasks that can be stepped at once in this process, number for number as one by one."""

MAX_FRAMES = 108_000
"""Frames after which ale_py truncates an episode by default."""


def make_environments(
    id: str,  # noqa: A002 - Gymnasium's name of it
    num_envs: int,
    *,
    vectorization: Vectorization = "sync",
    kwargs: Mapping[str, Any] | None = None,
    wrappers: Sequence[Wrap] = (),
    resets_itself: bool = True,
    restorable: bool = False,
    max_length: int | None = None,
    worker_timeout: float = 60.0,
    start_timeout: float = 300.0,
) -> Environments:
    """Make a vector environment.

    Args:
        id: of Gymnasium, e.g. ``"CartPole-v1"`` or ``"module:Id-v0"``, which imports the module first; or of envpool.
        num_envs: number of environments that are stepped together, >= 1.
        vectorization: ``"sync"``: all in this process; ``"async"``: one process each; ``"vector_entry_point"``: the
            task's own vectorised form; ``"atari"``: ale_py's, for ids ``ALE/...-v5``; ``"envpool"``: threads in C++.
        kwargs: arguments of ``gymnasium.make``, of ale_py's ``AtariVectorEnv``, or of ``envpool.make``.
        wrappers: functions that wrap one environment, the innermost first; for ``"sync"`` and ``"async"`` only.
        resets_itself: start a new episode in the step that ends one; false: ``reset`` with a ``reset_mask`` starts it.
        restorable: a reset can put an environment into a given state (see `RestoredStarts`).
        max_length: steps after which an episode is truncated at the latest; None: where the task does.
        worker_timeout: seconds that a worker of ``"async"`` may take for one answer, > 0.
        start_timeout: seconds that a worker of ``"async"`` may take to start and to make its environment, > 0.

    Returns:
        Environments in SAME_STEP mode (DISABLED if they do not reset themselves), or in their own mode where they are
        natively vectorised by an entry point or by envpool. Those of SAME_STEP mode can be saved by `snapshot`. Single
        environments have plain spaces, see `PlainSpaces`.

    Raises:
        EnvironmentArgumentError: the id is unknown, its package is missing, or it does not take the given arguments.
        WorkerError: a worker died, or did not make its environment in time.
    """
    refuse_to_run_again()
    kwargs = dict(kwargs or {})
    mode = AutoresetMode.SAME_STEP if resets_itself else AutoresetMode.DISABLED
    if vectorization == "envpool":
        pools = partial(EnvpoolEnvironments, task_name(id), num_envs, max_length=max_length, **kwargs)
        return made(id, kwargs, partial(pools, autoreset_mode=AutoresetMode.NEXT_STEP if resets_itself else mode))
    spec = _spec(id)
    if vectorization == "atari":
        return _games(id, spec, num_envs, mode, _shortened(kwargs, max_length))
    if vectorization == "vector_entry_point":
        return made(id, kwargs, lambda: gym.make_vec(id, num_envs, "vector_entry_point", **kwargs))
    wrap = partial(_wrapped, wrappers=wrappers, restorable=restorable, max_length=max_length)
    worker = " worker" if vectorization == "async" else ""
    makers = [
        _maker(spec, kwargs, wrap, f"environment{worker} {index} of {id}", index if resets_itself else None)
        for index in range(num_envs)
    ]
    timeouts = (worker_timeout, start_timeout) if vectorization == "async" else None
    environments = made(id, kwargs, lambda: _vectorized(makers, mode, timeouts))
    environments.spec = spec
    return environments


def make_at_once(id: str, num_envs: int) -> Environments | None:  # noqa: A002 - Gymnasium's name of it
    """Make environments that are stepped at once in this process, for evaluation; None if the task has no such form.

    Args:
        id: of Gymnasium, without arguments and wrappers.
        num_envs: number of environments.

    Returns:
        Environments in DISABLED mode. The episode of a seed is that of `make_environments`.
    """
    if id not in AT_ONCE:
        return None
    spec = task_spec(id)
    environments = CartPoleEnvironments(num_envs, spec.max_episode_steps or MAX_FRAMES)
    environments.spec = spec
    return environments


def task_spaces(
    id: str,  # noqa: A002 - Gymnasium's name of it
    *,
    vectorization: Vectorization = "sync",
    kwargs: Mapping[str, Any] | None = None,
    wrappers: Sequence[Wrap] = (),
    start_timeout: float = 300.0,
) -> tuple[Space, Space]:
    """Return the observation and the action space of one environment.

    With vectorization async a process of its own makes the environment, as it makes those of training.

    Args:
        id: see `make_environments`.
        vectorization: see `make_environments`.
        kwargs: see `make_environments`.
        wrappers: see `make_environments`.
        start_timeout: see `make_environments`.

    Raises:
        EnvironmentArgumentError: see `make_environments`.
        WorkerError: the process died, or did not make the environment in time.
    """
    if vectorization == "async":
        arguments = dict(kwargs or {})
        wrap = partial(_wrapped, wrappers=wrappers)
        maker = _maker(_spec(id), arguments, wrap, f"environment worker 0 of {id}", None)
        passed_on = (EnvironmentArgumentError,)
        described = made(id, arguments, lambda: describe(maker, timeout=start_timeout, passed_on=passed_on))
        return described.observation_space, described.action_space
    single = make_environments(
        id, 1, vectorization=vectorization, kwargs=kwargs, wrappers=wrappers, resets_itself=False
    )
    with closed_afterwards(single) as environments:
        return environments.single_observation_space, environments.single_action_space


def _spec(id: str) -> EnvSpec:  # noqa: A002
    spec = task_spec(id)
    # the two wrappers that only find mistakes of whoever steps an environment by hand cost 5 % of a CartPole step
    spec.disable_env_checker, spec.order_enforce = True, False
    spec.entry_point = FASTER.get(str(spec.entry_point), spec.entry_point)
    return spec


def _vectorized(makers: Sequence[Maker], mode: AutoresetMode, timeouts: tuple[float, float] | None) -> Environments:
    if timeouts is None:
        return SyncEnvironments(makers, copy=False, autoreset_mode=mode)
    return WorkerEnvironments(
        makers,
        timeout=timeouts[0],
        start_timeout=timeouts[1],
        passed_on=(EnvironmentArgumentError,),
        autoreset_mode=mode,
    )


def _maker(spec: EnvSpec, kwargs: dict[str, Any], wrap: Wrap, label: str, index: int | None) -> Maker:
    """Return the function that makes one environment; with an index its state can be saved."""

    def make() -> Environment:
        _need_no_display()
        checked = Checked(made(spec.id, kwargs, lambda: wrap(gym.make(spec, **kwargs))), label)
        return checked if index is None else Resumable(checked, index)

    return make


def _need_no_display() -> None:
    """Let SDL draw into memory where there is no screen; it complains on standard error about a missing one."""
    if not has_display():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def has_display() -> bool:
    """Return whether a window can be opened, as far as the environment variables of Linux say."""
    return sys.platform != "linux" or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())


def _wrapped(
    environment: Environment, *, wrappers: Sequence[Wrap], restorable: bool = False, max_length: int | None = None
) -> Environment:
    environment = RestoredStarts(environment) if restorable else environment
    for wrap in wrappers:
        environment = wrap(environment)
    environment = environment if max_length is None else TimeLimit(environment, max_length)
    return with_plain_spaces(environment)


def _games(
    id: str,  # noqa: A002
    spec: EnvSpec,
    num_envs: int,
    mode: AutoresetMode,
    kwargs: dict[str, Any],
) -> AtariEnvironments:
    if "game" not in spec.kwargs:
        raise EnvironmentArgumentError(
            f"id: vectorization atari plays ALE/<Game>-v5, got {id}; choose vectorization sync"
        )
    environments = AtariEnvironments(str(spec.kwargs["game"]), num_envs, autoreset_mode=mode, **kwargs)
    environments.spec = spec
    return environments


def _shortened(kwargs: dict[str, Any], max_length: int | None) -> dict[str, Any]:
    """Return ale_py's options with episodes of at most ``max_length`` steps; ale_py counts frames, also idle ones."""
    if max_length is None:
        return kwargs
    frames = min(kwargs.get("max_num_frames_per_episode", MAX_FRAMES), max_length * kwargs.get("frameskip", 4))
    return {**kwargs, "max_num_frames_per_episode": frames}
