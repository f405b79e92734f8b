"""Register tasks, find tasks by their Gymnasium id, and report errors in making them."""

import importlib
import importlib.util
import re
from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, TypeVar

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector.utils import CloudpickleWrapper

from tesserl_environments.errors import EnvironmentArgumentError
from tesserl_environments.modules import import_named, split_id

Environment = gym.Env[Any, Any]
TaskMaker = Callable[..., Environment]
Made = TypeVar("Made")

PYTHON = "python"
"""Namespace of tasks that `register_maker` registers."""


def task_spec(id: str) -> EnvSpec:  # noqa: A002
    """Return the registration of a task; import its module first if the id names one.

    Args:
        id: Gymnasium id of the task.

    Raises:
        EnvironmentArgumentError: the id is unknown, or its module or package is missing.
    """
    register(id)
    return copy(made(id, {}, lambda: gym.spec(split_id(id)[1])))


def has_time_limit(id: str, kwargs: Mapping[str, Any] | None = None) -> bool:  # noqa: A002
    """Return whether the registration of a task limits the length of its episodes.

    Args:
        id: Gymnasium id of the task.
        kwargs: arguments of ``gymnasium.make``.

    Raises:
        EnvironmentArgumentError: the id is unknown.
    """
    steps = (kwargs or {}).get("max_episode_steps")  # an argument of gym.make
    if steps is None:
        steps = task_spec(id).max_episode_steps
    return steps is not None and steps > 0


def register(id: str) -> None:  # noqa: A002
    """Register the task of an id: import the module of ``module:Id``, or the package of a known namespace.

    Args:
        id: Gymnasium id of the task.

    Raises:
        EnvironmentArgumentError: the module cannot be imported, or the package of the namespace is not installed.
    """
    module, id = split_id(id)  # noqa: A001
    if module is not None:
        import_named(module, "id")
    namespace = id.split("/")[0] if "/" in id else ""
    if namespace == "MinAtar" and f"{namespace}/Breakout-v1" not in gym.registry:
        _require("minatar", "MinAtar", id, extra="minatar")
        importlib.import_module("minatar.gym").register_envs()
    if namespace == PYTHON and id not in gym.registry:
        raise EnvironmentArgumentError(
            f"id: {id} is made by a function of a Python program, which this process does not have; "
            "go on from Python: train(config, environment=FUNCTION, run_dir=RUN, resume=True), or "
            "evaluate(RUN, environment=FUNCTION)"
        )
    if namespace == "ALE":
        _require("ale_py", "ale_py", id, extra="atari")
        importlib.import_module("ale_py")


def register_maker(name: str, maker: TaskMaker) -> str:
    """Register a function that makes one environment, for as long as this process lives.

    Args:
        name: name of the task; a maker that is registered later under this name replaces this one.
        maker: called with the ``kwargs`` of ``make_environments``.

    Returns:
        The id of the task: ``python/`` followed by the name.
    """
    id = f"{PYTHON}/{re.sub(r'[^A-Za-z0-9_.-]+', '-', name.removeprefix(f'{PYTHON}/'))}"  # noqa: A001
    gym.registry[id] = EnvSpec(id, entry_point=maker)
    return id


def registered_maker(id: str) -> CloudpickleWrapper | None:  # noqa: A002 - Gymnasium's name of it
    """Return the function that `register_maker` registered for a task, picklable; None for other tasks.

    Args:
        id: id of the task.
    """
    maker: Any = gym.registry[id].entry_point if id.startswith(f"{PYTHON}/") else None
    return None if maker is None else CloudpickleWrapper(maker)


def _require(module: str, name: str, id: str, *, extra: str) -> None:  # noqa: A002
    if importlib.util.find_spec(module) is None:
        raise EnvironmentArgumentError(f'id: {id} needs {name}; install "tesserl-environments[{extra}]"')


def _missing_package(id: str) -> str:  # noqa: A002
    """Return the extra that installs the missing package of a Gymnasium task, or ``"it"`` if there is none."""
    entry_point = str(gym.registry[id].entry_point) if id in gym.registry else ""
    extra = next((extra for extra in ("box2d", "mujoco") if entry_point.startswith(f"gymnasium.envs.{extra}")), None)
    return "it" if extra is None else f'"tesserl-environments[{extra}]"'


def made(id: str, kwargs: dict[str, Any], make: Callable[[], Made]) -> Made:  # noqa: A002
    """Call ``make`` and return its result; convert its errors to errors that name the wrong key."""
    try:
        return make()
    except (gym.error.DependencyNotInstalled, ModuleNotFoundError) as error:
        raise EnvironmentArgumentError(
            f"id: {id} needs a package that is not installed ({error}); install {_missing_package(id)}"
        ) from error
    except gym.error.Error as error:
        raise EnvironmentArgumentError(f"id: {error}") from error
    except TypeError as error:
        raise EnvironmentArgumentError(f"kwargs: {id} does not take {kwargs}: {error}") from error
    except Exception as error:
        if isinstance(error, MemoryError) or type(error).__module__.startswith("tesserl_"):
            raise
        said = f"{type(error).__name__}: {error}"
        key = "kwargs" if kwargs else "id"
        raise EnvironmentArgumentError(f"{key}: {id} cannot be made with {kwargs}: {said}") from error
