"""Convert the spaces of a task to the plain spaces that policies and layouts support.

Plain actions have at most one axis and count from 0; plain observations are one array or one flat Dict of arrays.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike

Space = spaces.Space[Any]
Path = tuple[str | int, ...]
"""Keys and positions that lead to an entry of an observation."""


class PlainSpaces(gym.Wrapper[Any, Any, Any, Any]):
    """Give a task plain action and observation spaces.

    Args:
        environment: the environment, with its other wrappers.

    Raises:
        ValueError: two entries of its observations would get the same name.
    """

    def __init__(self, environment: gym.Env[Any, Any]) -> None:
        super().__init__(environment)
        self.action_space = plain_action_space(environment.action_space)
        self._entries: dict[str, Path] | None = None
        if is_nested(environment.observation_space):
            entries = list(_entries(environment.observation_space, ()))
            names = [".".join(map(str, path)) for path, _ in entries]
            if len(set(names)) < len(names):
                raise ValueError(f"entries of an observation must have names of their own, got {names}; rename one")
            self._entries = {name: path for name, (path, _) in zip(names, entries, strict=True)}
            parts = {name: space for name, (_, space) in zip(names, entries, strict=True)}
            self.observation_space = spaces.Dict(parts)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment and return the plain observation."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._plain(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a plain action and return the plain observation."""
        observation, *rest = self.env.step(own_action(self.env.action_space, action))
        return self._plain(observation), *rest

    def _plain(self, observation: Any) -> Any:
        """Return the entries by name; `Checked` reports a missing entry."""
        if self._entries is None:
            return observation
        found = {}
        for name, path in self._entries.items():
            part = observation
            try:
                for key in path:
                    part = part[key]
            except (KeyError, IndexError, TypeError):
                continue
            found[name] = part
        return found


def with_plain_spaces(environment: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Return an environment with plain spaces; wrap it in `PlainSpaces` if needed."""
    action_space = environment.action_space
    is_plain = plain_action_space(action_space) is action_space and not is_nested(environment.observation_space)
    return environment if is_plain else PlainSpaces(environment)


def plain_action_space(space: Space) -> Space:
    """Return the plain action space of a task, from which a policy chooses.

    Args:
        space: action space of the task.

    Returns:
        A ``Discrete`` that starts at 0, a ``MultiDiscrete`` of one axis that starts at 0 (also for ``MultiBinary``), or
        a ``Box`` of one axis for real numbers. Any other space, and a plain one, is returned unchanged.
    """
    match space:
        case spaces.Discrete() if space.start != 0:
            return spaces.Discrete(int(space.n))
        case spaces.MultiBinary():
            return spaces.MultiDiscrete([2] * int(np.prod(space.shape)))
        case spaces.MultiDiscrete() if len(space.shape) != 1 or space.start.any():
            return spaces.MultiDiscrete(space.nvec.reshape(-1))
        case spaces.Box() if len(space.shape) != 1 and np.issubdtype(space.dtype, np.floating):
            dtype: Any = space.dtype
            return spaces.Box(space.low.reshape(-1), space.high.reshape(-1), dtype=dtype)
    return space


def own_action(space: Space, action: ArrayLike) -> Any:
    """Convert a plain action to the task's action.

    Args:
        space: action space of the task.
        action: action in ``plain_action_space(space)``.
    """
    match space:
        case spaces.Discrete():
            return np.asarray(action, space.dtype)[()] + space.start
        case spaces.MultiDiscrete():
            return np.asarray(action, space.dtype).reshape(space.shape) + space.start
        case spaces.MultiBinary() | spaces.Box():
            return np.asarray(action, space.dtype).reshape(space.shape)
    return action


def is_nested(space: Space) -> bool:
    """Return whether a space is a Tuple, or a Dict that contains a Dict or a Tuple."""
    inner = space.spaces.values() if isinstance(space, spaces.Dict) else ()
    return isinstance(space, spaces.Tuple) or any(isinstance(part, spaces.Dict | spaces.Tuple) for part in inner)


def _entries(space: Space, path: Path) -> Iterator[tuple[Path, Space]]:
    """Yield the entries of an observation that are not containers, with their paths."""
    parts: Mapping[Any, Space]
    match space:
        case spaces.Dict():
            parts = space.spaces
        case spaces.Tuple():
            parts = dict(enumerate(space.spaces))
        case _:
            yield path, space
            return
    for key, part in parts.items():
        yield from _entries(part, (*path, key))
