"""Make vector environments from a task id and plain arguments."""

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
from tesserl_environments.visited_starts import ReplayedStarts
from tesserl_environments.workers import WorkerEnvironments, closed_afterwards

Environments = VectorEnv[Any, Any, Any]
Space = spaces.Space[Any]
Wrap = Callable[[Environment], Environment]
Vectorization = Literal["sync", "async", "vector_entry_point", "atari", "envpool"]
StartKind = Literal["seed", "level", "state", "visited"]  # what a reset may begin from
Maker = Callable[[], Environment]

FASTER = {"gymnasium.envs.box2d.car_racing:CarRacing": "tesserl_environments.car_racing:CarRacing"}
"""Entry points of tasks, and of faster versions with the same results."""

AT_ONCE = {"CartPole-v0", "CartPole-v1"}
"""Tasks that `make_at_once` supports: a vectorised version gives exactly the results of single environments."""

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
    starts: StartKind = "seed",
    max_length: int | None = None,
    worker_timeout: float = 60.0,
    start_timeout: float = 300.0,
) -> Environments:
    """Make a vector environment.

    Args:
        id: id of Gymnasium, e.g. ``"CartPole-v1"`` or ``"module:Id-v0"``, which imports the module first; or of
            envpool.
        num_envs: number of environments, >= 1.
        vectorization: ``"sync"``: all in this process; ``"async"``: one process each; ``"vector_entry_point"``: the
            task's vectorised version; ``"atari"``: ale_py's vector environment, for ids ``ALE/...-v5``; ``"envpool"``:
            C++ threads.
        kwargs: arguments of ``gymnasium.make``, of ale_py's ``AtariVectorEnv``, or of ``envpool.make``.
        wrappers: functions that wrap one environment, the innermost first; only for ``"sync"`` and ``"async"``.
        resets_itself: start the next episode in the step that ends one; if false, ``reset`` with a ``reset_mask``
            starts it.
        starts: what a reset may begin from: ``"seed"`` or ``"level"``; ``"state"``, a given state (see
            `RestoredStarts`); or ``"visited"``, actions to replay (see `ReplayedStarts`). The last two are only for
            ``"sync"`` and ``"async"``.
        max_length: largest number of steps of an episode, which is then truncated; None for the task's own limit.
        worker_timeout: seconds that an ``"async"`` worker may take for one answer, > 0.
        start_timeout: seconds that an ``"async"`` worker may take to start and to make its environment, > 0.

    Returns:
        Environments in SAME_STEP mode, or in DISABLED mode if ``resets_itself`` is false. Those of
        ``"vector_entry_point"`` and ``"envpool"`` are in their own mode. `snapshot` can save environments in SAME_STEP
        mode. Single environments have plain spaces, see `PlainSpaces`.

    Raises:
        EnvironmentArgumentError: the id is unknown, its package is missing, or the task does not take the arguments.
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
    wrap = partial(_wrapped, wrappers=wrappers, starts=starts, max_length=max_length)
    worker = " worker" if vectorization == "async" else ""
    makers = [
        _maker(spec, kwargs, wrap, f"environment{worker} {index} of {id}", index if resets_itself else None, starts)
        for index in range(num_envs)
    ]
    timeouts = (worker_timeout, start_timeout) if vectorization == "async" else None
    environments = made(id, kwargs, lambda: _vectorized(makers, mode, timeouts))
    environments.spec = spec
    return environments


def make_at_once(id: str, num_envs: int) -> Environments | None:  # noqa: A002 - Gymnasium's name of it
    """Make environments that one vectorised operation steps, for evaluation; None if the task has no such version.

    Args:
        id: id of Gymnasium; no arguments or wrappers are possible.
        num_envs: number of environments.

    Returns:
        Environments in DISABLED mode. Episodes of a seed are the same as with `make_environments`.
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

    With vectorization ``"async"`` a separate process makes the environment, as in training.

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
        maker = _maker(_spec(id), arguments, wrap, f"environment worker 0 of {id}", None, "seed")
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
    # these two wrappers only find errors in hand-written loops, and cost 5 % of a CartPole step
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


def _maker(
    spec: EnvSpec, kwargs: dict[str, Any], wrap: Wrap, label: str, index: int | None, starts: StartKind
) -> Maker:
    """Return the function that makes one environment; with an index, its state can be saved."""

    def make() -> Environment:
        _need_no_display()
        checked: Environment = Checked(made(spec.id, kwargs, lambda: wrap(gym.make(spec, **kwargs))), label)
        checked = ReplayedStarts(checked, label) if starts == "visited" else checked
        return checked if index is None else Resumable(checked, index)

    return make


def _need_no_display() -> None:
    """Make SDL draw into memory if there is no screen, to avoid its warnings on standard error."""
    if not has_display():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def has_display() -> bool:
    """Return whether a window can be opened, judged by environment variables (on Linux)."""
    return sys.platform != "linux" or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())


def _wrapped(
    environment: Environment, *, wrappers: Sequence[Wrap], starts: StartKind = "seed", max_length: int | None = None
) -> Environment:
    environment = RestoredStarts(environment) if starts == "state" else environment
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
    """Return ale_py's options for episodes of at most ``max_length`` steps; ale_py counts frames, including no-ops."""
    if max_length is None:
        return kwargs
    frames = min(kwargs.get("max_num_frames_per_episode", MAX_FRAMES), max_length * kwargs.get("frameskip", 4))
    return {**kwargs, "max_num_frames_per_episode": frames}
