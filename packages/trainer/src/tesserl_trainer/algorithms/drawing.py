"""Tasks that draw: their configuration, and the frames of their environments."""

from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator

from tesserl_configs import ConfigError, RunConfig
from tesserl_environments import task_spec
from tesserl_environments.making import Environments
from tesserl_trainer.algorithms.environments import import_modules, naming_block


def drawing(config: RunConfig, *, remedy: str) -> RunConfig:
    """Return the configuration with a task that renders frames.

    Args:
        config: the whole configuration.
        remedy: the end of the error.

    Raises:
        ConfigError: the task renders none.
    """
    task = config.environment
    why = f"vectorization {task.vectorization}" if task.vectorization in ("atari", "envpool") else ""
    if not why:
        with naming_block():
            import_modules(task)
            point: Any = task_spec(task.id).entry_point
        point = load_env_creator(point) if isinstance(point, str) else point
        modes = getattr(point, "metadata", {}).get("render_modes")
        why = f"its render modes are {modes}" if modes is not None and "rgb_array" not in modes else ""
    if why:
        raise ConfigError(f"environment.id: {task.id} draws no pictures ({why}); {remedy}")
    environment = task.model_copy(update={"kwargs": {**task.kwargs, "render_mode": "rgb_array"}})
    return config.model_copy(update={"environment": environment})


def drawn_frames(environments: Environments, *, remedy: str) -> Any:
    """Return the rendered frames of all environments.

    Args:
        environments: with ``render_mode="rgb_array"``.
        remedy: the end of the error.

    Raises:
        ConfigError: a package that draws is missing.
    """
    try:
        return environments.render()
    except gym.error.DependencyNotInstalled as error:
        name = environments.spec.id if environments.spec else "the task"
        raise ConfigError(f"environment.id: {name} cannot be drawn ({error}); {remedy}") from error
