"""Render tasks: configure them for it, and read the frames of their environments."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator

from tesserl_configs import ConfigError, RunConfig
from tesserl_environments import task_spec
from tesserl_environments.making import Environments
from tesserl_trainer.algorithms.environments import import_modules, naming_block

LACKS = {"rgb_array": "draws no pictures", "human": "opens no window", "ansi": "writes no text"}
"""Render modes -> descriptions of a task that lacks them, for errors."""


def render_modes(config: RunConfig) -> list[str] | None:
    """Return the list of render modes that a task declares, perhaps empty; None if it declares no list."""
    with naming_block():
        import_modules(config.environment)
        point: Any = task_spec(config.environment.id).entry_point
    point = load_env_creator(point) if isinstance(point, str) else point
    modes: list[str] | None = getattr(point, "metadata", {}).get("render_modes")
    return modes


def drawing(config: RunConfig, *, mode: str = "rgb_array", remedy: str) -> RunConfig:
    """Return the configuration with the task in a render mode; ``remedy`` ends the error if the task lacks the mode."""
    task = config.environment
    why = f"vectorization {task.vectorization}" if task.vectorization in ("atari", "envpool") else ""
    if not why:
        modes = render_modes(config)
        why = f"its render modes are {modes}" if modes is not None and mode not in modes else ""
    if why:
        raise ConfigError(f"environment.id: {task.id} {LACKS[mode]} ({why}); {remedy}")
    environment = task.model_copy(update={"kwargs": {**task.kwargs, "render_mode": mode}})
    return config.model_copy(update={"environment": environment})


@contextmanager
def naming_missing_package(environments: Environments, *, remedy: str) -> Iterator[None]:
    """Turn a missing rendering package into a configuration error of the task that ends with ``remedy``."""
    try:
        yield
    except gym.error.DependencyNotInstalled as error:
        name = environments.spec.id if environments.spec else "the task"
        raise ConfigError(f"environment.id: {name} cannot be drawn ({error}); {remedy}") from error


def drawn_frames(environments: Environments, *, remedy: str) -> Any:
    """Return the rendered frames of all environments, of ``render_mode="rgb_array"`` or ``"ansi"``."""
    with naming_missing_package(environments, remedy=remedy):
        return environments.render()
