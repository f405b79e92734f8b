"""``tesserl init``: write a configuration whose network and algorithm fit the spaces of a task."""

import re
from collections.abc import Mapping
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any

from tesserl_configs import ConfigError, load_config
from tesserl_configs.algorithms import Algorithm, installed
from tesserl_configs.commented import commented
from tesserl_configs.environment import ALE, EnvironmentConfig
from tesserl_environments import ObservationLayout, task_spec
from tesserl_environments.making import Space
from tesserl_storage.whole_files import write_atomically
from tesserl_trainer.algorithms.environments import discrete_actions, has_time_limit, naming_block, task_spaces
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.usage import ArgumentError, TakenError, command_line

STEPS, IMAGE_STEPS = 100_000, 1_000_000
"""Environment steps of a run on vectors, and of a run on images."""

MOST_STEPS = 1_000
"""Limit in steps for episodes of a task without a limit."""

LARGEST_SIDE = 100
"""Longest image side in pixels; larger images are scaled down."""

NATURE_SIDE = 36
"""Smallest image side in pixels that the convolutions of Mnih et al. 2015 accept."""


class StartingTask:
    """The task of a new file; its module is searched in ``places``."""

    def __init__(self, id: str, places: tuple[Path, ...]) -> None:  # noqa: A002 - Gymnasium's name
        self.id = id
        atari = {"vectorization": "atari"} if id.startswith(ALE) else {}
        module_path = tuple(dict.fromkeys(str(place.resolve()) for place in places))
        block = EnvironmentConfig.model_validate({"id": id, **atari, "module_path": module_path if ":" in id else ()})
        spaces = task_spaces(block)
        wrappers = [] if atari else _wrappers(_layout(id, spaces[0]).shapes)
        self.block = EnvironmentConfig.model_validate({**block.model_dump(exclude_unset=True), "wrappers": wrappers})
        self.spaces: tuple[Space, Space] = task_spaces(self.block) if wrappers else spaces
        self.shapes = _layout(id, self.spaces[0]).shapes
        self.keys: dict[str, Any] = {"id": id, "num_envs": 8, **atari, **({"wrappers": wrappers} if wrappers else {})}

    @cached_property
    def algorithms(self) -> dict[str, Algorithm]:
        """Algorithms that support the action space of the task, by name."""
        return {each.name: each for each in installed() if each.network == "policy" or self._has_discrete_actions}

    @cached_property
    def _has_discrete_actions(self) -> bool:
        try:
            discrete_actions(self.spaces[1])
        except ConfigError:
            return False
        return True

    def file_name(self, algorithm: str) -> str:
        """Return a file name made of the task, without module and version, and the algorithm."""
        task = re.sub(r"-v\d+$", "", self.id.rpartition(":")[2]).lower()
        return f"{re.sub('[^a-z0-9]+', '-', task).strip('-')}-{algorithm}.yaml"


def write_starting_file(task: StartingTask, algorithm: str, file: Path) -> None:
    """Write a commented configuration that trains without changes.

    Args:
        task: the task.
        algorithm: name of the algorithm.
        file: file to write; it must not exist.

    Raises:
        ArgumentError: the algorithm does not exist, or does not support the task's actions.
        ConfigError: the network of the algorithm does not fit the task.
        TakenError: the file exists.
    """
    if algorithm not in task.algorithms:
        raise ArgumentError(
            f"--algorithm {algorithm}: expected one that is installed and has actions {task.spaces[1]} of {task.id}; "
            f"choose {', '.join(task.algorithms)}"
        )
    if file.exists():
        raise TakenError(f"{file} is there already and is not overwritten; name another file")
    text = _head(task, algorithm, file) + commented(_keys(task, task.algorithms[algorithm]))

    def write(partial: Path) -> None:
        partial.write_text(text, encoding="utf-8")
        Task(load_config(partial), task.spaces).network()  # an error here removes the file

    try:
        write_atomically(file, write, overwrite=False)
    except FileExistsError as error:
        raise TakenError(f"{file} is there already and is not overwritten; name another file") from error


def _layout(id: str, space: Space) -> ObservationLayout:  # noqa: A002
    try:
        return ObservationLayout(space)
    except ValueError as error:
        raise ConfigError(f"--env {id}: {error}") from error


def _wrappers(shapes: Mapping[str, tuple[int, ...]]) -> list[dict[str, Any]]:
    """Return the wrappers that the network needs: they scale large images down."""
    channels, *sides = shapes.get("pixels", (0, 0, 0))
    if max(sides) <= LARGEST_SIDE:
        return []
    gray = [{"kind": "grayscale"}] if channels == 3 else []
    return [*gray, {"kind": "resize", "height": 84, "width": 84}]


def _head(task: StartingTask, algorithm: str, file: Path) -> str:
    """Return the comment at the top of the file."""
    observations = ", ".join(f"{key} {list(shape)}" for key, shape in task.shapes.items())
    return (
        f"# {algorithm} on {task.id}. Observations: {observations}. Actions: {task.spaces[1]}.\n"
        f"#   {command_line('tesserl', 'train', file)}\n"
        "# The values are a start for small tasks, not tuned for this one. Keys that are not here have defaults:\n"
        "# `tesserl config show` prints all of them, `tesserl config explain KEY` says what one means.\n"
    )


def _keys(task: StartingTask, algorithm: Algorithm) -> dict[str, Any]:
    """Return the keys of the file, in the order of the schema."""
    start = deepcopy(dict(algorithm.start))
    steps = IMAGE_STEPS if "pixels" in task.shapes else STEPS
    environment, limit = dict(task.keys), _limit(task)
    if limit is None:
        limit = MOST_STEPS
        if not has_time_limit(task.block):
            wrappers = [*environment.pop("wrappers", []), {"kind": "time_limit", "max_episode_steps": limit}]
            environment["wrappers"] = wrappers
    return {
        "seed": 1,
        "total_steps": steps,
        "environment": environment,
        "nn": _network(task.shapes, start.pop("nn", {})),
        "algorithm": algorithm.name,
        algorithm.name: start.pop(algorithm.name, {}),
        "optimizer": {"kind": algorithm.optimizer_kind, **start.pop("optimizer", {})},
        **start,
        "evaluation": {
            "interval": steps // 20,
            "episodes": 10,
            "final_episodes": 50,
            "seed": 10_000,
            "max_episode_steps": limit,
        },
        "checkpoint": {"interval": steps // 10},
        "logging": {"interval": steps // 100},
        "device": "cpu",
    }


def _limit(task: StartingTask) -> int | None:
    """Return the task's registered limit of steps per episode; None if there is none."""
    with naming_block():
        return task_spec(task.id).max_episode_steps


def _network(shapes: Mapping[str, tuple[int, ...]], start: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``nn:`` block: an encoder for each kind of observation, and the heads of the algorithm."""
    parts: dict[str, Any] = {}
    if "pixels" in shapes:
        parts["vision"] = {**_encoder(*shapes["pixels"][1:]), **start.get("vision", {})}
    if "observation" in shapes:
        vector = {"kind": "mlp", "normalization": {"kind": "running"}, "hidden_sizes": [64, 64]}
        parts["vector"] = {**vector, "activation": "tanh", **start.get("vector", {})}
    if len(parts) == 2:
        parts["fusion"] = {"kind": "none"}
    return {**parts, **({"heads": start["heads"]} if "heads" in start else {})}


def _encoder(height: int, width: int) -> dict[str, Any]:
    """Return the encoder of an image: Young & Tian 2019 for small ones, Mnih et al. 2015 from 36 x 36 pixels on."""
    if min(height, width) >= NATURE_SIDE:
        return {"kind": "cnn", "preset": "nature", "hidden_sizes": [256]}
    kernel = min(3, height, width)
    return {"kind": "cnn", "channels": [16], "kernel_sizes": [kernel], "strides": [1], "hidden_sizes": [128]}
