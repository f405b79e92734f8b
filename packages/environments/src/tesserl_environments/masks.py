"""Action masks: the allowed actions of a state, given in the observation or in ``info``."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from tesserl_environments.errors import EnvironmentArgumentError
from tesserl_environments.plain_spaces import plain_action_space

ACTION_MASK = "action_mask"
"""Key of the mask in a Dict observation, in ``info`` and in the TensorDict."""


class ActionMask:
    """Read and apply action masks; true means that an action is allowed.

    Args:
        space: space of the entry ``action_mask``.
        action_space: action space of one environment; actions count from 0, as in `plain_action_space`.

    Raises:
        ValueError: the actions are not discrete, or the mask does not have one boolean per option.
    """

    def __init__(self, space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        plain = plain_action_space(action_space)
        sizes = _options(plain)
        if not sizes:
            raise ValueError(
                f"{ACTION_MASK} is for Discrete and MultiDiscrete actions, got {action_space}; rename or drop the entry"
                " in a wrapper"
            )
        self._space_shape = space.shape or ()
        is_of_truth_values = isinstance(space, spaces.Box | spaces.MultiBinary) and np.dtype(space.dtype).kind in "biu"
        if not is_of_truth_values or int(np.prod(self._space_shape, dtype=np.int64)) != sum(sizes):
            raise ValueError(
                f"{ACTION_MASK} must have one bool, or integer 0 or 1, for each of the {sum(sizes)} options of "
                f"{action_space}, got {space}; correct the observation space, or rename the entry in a wrapper"
            )
        blocks = isinstance(plain, spaces.MultiDiscrete) and len(set(sizes)) == 1
        self.shape: tuple[int, ...] = (len(sizes), sizes[0]) if blocks else (sum(sizes),)
        self._starts = np.cumsum([0, *sizes[:-1]])  # index of the first option of each choice
        self._is_single = isinstance(plain, spaces.Discrete)

    def read(self, batch: NDArray[Any]) -> NDArray[np.bool_]:
        """Convert entries ``[N, *space.shape]`` to masks ``[N, *shape]``.

        Raises:
            ValueError: a value is neither 0 nor 1.
        """
        if batch.dtype != np.bool_ and batch.size and (batch.min() < 0 or batch.max() > 1):
            got = f"{batch.min()} to {batch.max()}"
            raise ValueError(f"{ACTION_MASK} must hold 0 and 1, got numbers from {got}; 1 allows an action")
        return batch.astype(np.bool_, copy=False).reshape(len(batch), *self.shape)

    def allows(self, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return whether masks ``[..., *shape]`` allow at least one option of every choice, ``[...]``."""
        return np.asarray(np.logical_or.reduceat(self._flat(masks), self._starts, axis=-1).all(axis=-1))

    def permits(self, masks: NDArray[np.bool_], actions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether masks ``[B, *shape]`` allow actions ``[B]`` or ``[B, N]``, ``[B]``."""
        index = actions.reshape(len(actions), -1) + self._starts
        return np.asarray(np.take_along_axis(self._flat(masks), index, axis=-1).all(axis=-1))

    def draw(self, masks: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.int64]:
        """Return uniformly random actions ``[B]`` or ``[B, N]`` that masks ``[B, *shape]`` allow."""
        flat = self._flat(masks)
        scores = np.split(np.where(flat, random.random(flat.shape), -1.0), self._starts[1:], axis=-1)
        drawn = np.stack([each.argmax(axis=-1) for each in scores], axis=-1)
        return drawn[:, 0] if self._is_single else drawn

    def log_density(self, masks: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the log-probability of what `draw` returns for masks ``[B, *shape]``, ``[B]``."""
        counts = np.add.reduceat(self._flat(masks).astype(np.int64), self._starts, axis=-1)
        return np.asarray(-np.log(np.maximum(counts, 1)).sum(axis=-1))

    def _flat(self, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return masks.reshape(*masks.shape[: masks.ndim - len(self.shape)], -1)


class MaskFromInfo(gym.Wrapper[Any, Any, Any, Any]):
    """Move ``info["action_mask"]`` of every reset and step into the observation, which becomes a Dict.

    Args:
        environment: environment with Discrete or MultiDiscrete actions. An observation that is not a Dict becomes the
            entry ``observation``.

    Raises:
        EnvironmentArgumentError: the actions are of another kind, or the observation already has an ``action_mask``.
    """

    def __init__(self, environment: gym.Env[Any, Any]) -> None:
        super().__init__(environment)
        space, sizes = environment.observation_space, _options(plain_action_space(environment.action_space))
        self._is_dict = isinstance(space, spaces.Dict)
        parts: dict[str, Any] = dict(space.spaces) if isinstance(space, spaces.Dict) else {"observation": space}
        if not sizes:
            raise EnvironmentArgumentError(
                f"wrappers: mask_from_info needs Discrete or MultiDiscrete actions, got {environment.action_space}; "
                "remove it"
            )
        if ACTION_MASK in parts:
            raise EnvironmentArgumentError(
                f"wrappers: mask_from_info: the observation has an entry {ACTION_MASK} already; remove the wrapper"
            )
        self.observation_space = spaces.Dict({**parts, ACTION_MASK: spaces.Box(0, 1, (sum(sizes),), np.int8)})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment and move the mask."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._with_mask(observation, info), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment and move the mask."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._with_mask(observation, info), reward, terminated, truncated, info

    def _with_mask(self, observation: Any, info: dict[str, Any]) -> dict[str, Any]:
        """Return the observation with its mask; if ``info`` has none, the check of observations reports it."""
        parts = observation if self._is_dict else {"observation": observation}
        return (
            {**parts, ACTION_MASK: np.asarray(info[ACTION_MASK]).ravel().astype(np.int8)}
            if ACTION_MASK in info
            else parts
        )


def _options(space: spaces.Space[Any]) -> list[int]:
    """Return the number of options of each choice of a plain action space; empty if actions are not discrete."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(number) for number in space.nvec]
    return []
