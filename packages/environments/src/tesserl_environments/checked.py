"""Check the results of one environment, and name the environment in its errors."""

import traceback
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy import ndarray

from tesserl_environments.arrays import NUMBERS, fit
from tesserl_environments.errors import TaskError

PASSED_ON = (gym.error.DependencyNotInstalled,)
"""Errors that are raised unchanged, because the caller reports them."""

REALS = frozenset({float, int, np.float64, np.float32})
TRUTHS = frozenset({bool, np.bool_})
"""Usual types of ``terminated`` and ``truncated``; other types need a slower check."""

ARRAYS = (spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete)
"""Spaces whose elements are arrays."""


class Checked(gym.Wrapper[Any, Any, Any, Any]):
    """Check shapes and types of an environment's results, and name the environment in its errors.

    It compares types and shapes but not values, so it costs little compared with a step.

    Args:
        environment: the environment with its other wrappers, except ``Resumable``.
        label: name of the environment for errors, e.g. ``"environment 3 of CartPole-v1"``.
    """

    def __init__(self, environment: gym.Env[Any, Any], label: str) -> None:
        super().__init__(environment)
        self._label = label
        self._observation = _ObservationCheck(environment.observation_space)
        space = environment.observation_space
        self._shape: tuple[int, ...] = space.shape or ()
        self._dtype: Any = space.dtype if isinstance(space, ARRAYS) else None  # None: check the entries of a Dict

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment and check the observation.

        Raises:
            TaskError: the environment raised an error, or did not return an observation of its space and a dictionary.
        """
        try:
            observation, info = self.env.reset(seed=seed, options=options)
        except PASSED_ON:
            raise
        except Exception as error:
            raise self._raised("reset", error) from error
        return self._checked("reset", observation), self._info("reset", info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment and check all results.

        Raises:
            TaskError: the environment raised an error, or did not return an observation of its space, a number, two
                booleans and a dictionary.
        """
        try:
            result = self.env.step(action)
            observation, reward, terminated, truncated, info = result
        except PASSED_ON:
            raise
        except Exception as error:
            raise self._raised("step", error) from error
        if (
            type(observation) is ndarray
            and observation.dtype is self._dtype
            and observation.shape == self._shape
            and type(reward) in REALS
            and type(terminated) in TRUTHS
            and type(truncated) in TRUTHS
            and type(info) is dict
        ):
            return result  # fast path for the usual types
        self._require(_is_scalar(reward, NUMBERS), "a reward that is a number", reward)
        self._require(_is_scalar(terminated, "b"), "terminated as a boolean", terminated)
        self._require(_is_scalar(truncated, "b"), "truncated as a boolean", truncated)
        return self._checked("step", observation), reward, terminated, truncated, self._info("step", info)

    def render(self) -> Any:
        """Render the environment.

        Raises:
            TaskError: the environment raised an error.
        """
        try:
            return self.env.render()
        except PASSED_ON:
            raise
        except Exception as error:
            raise self._raised("render", error) from error

    def close(self) -> None:
        """Close the environment.

        Raises:
            TaskError: the environment raised an error.
        """
        try:
            self.env.close()
        except Exception as error:
            raise self._raised("close", error) from error

    def _checked(self, method: str, observation: Any) -> Any:
        try:
            return self._observation(observation)
        except ValueError as error:
            raise TaskError(
                f"{self._label}: {method}() returned an observation that is not of its space: {error}; "
                "correct the task or its observation_space"
            ) from error

    def _info(self, method: str, info: Any) -> dict[str, Any]:
        if not isinstance(info, dict):
            got = type(info).__name__
            raise TaskError(f"{self._label}: {method}() must return info as a dict, got {got}; correct the task")
        return info

    def _require(self, holds: bool, expected: str, got: Any) -> None:
        if not holds:
            described = f"an array of shape {got.shape}" if isinstance(got, np.ndarray) else repr(got)
            raise TaskError(f"{self._label}: step() must return {expected}, got {described}; correct the task")

    def _raised(self, method: str, error: Exception) -> TaskError:
        return TaskError(f"{self._label} raised an error in {method}():\n{_traceback(error)}")


class _ObservationCheck:
    """Check the observations of one space; spaces that networks cannot read are not checked."""

    def __init__(self, space: spaces.Space[Any]) -> None:
        self._whole = _array_check(space)
        self._parts: dict[str, _ArrayCheck] = {}
        if isinstance(space, spaces.Dict):
            checks = {name: _array_check(part) for name, part in space.spaces.items()}
            self._parts = {name: check for name, check in checks.items() if check is not None}

    def __call__(self, observation: Any) -> Any:
        """Return the observation with integers of other widths converted; reject one that is not in the space."""
        if self._whole is not None:
            return self._whole(observation)
        for name, check in self._parts.items():
            try:
                value = observation[name]
                checked = check(value)
            except (KeyError, TypeError, IndexError) as error:
                raise ValueError(f"entry {name!r} is missing") from error
            except ValueError as error:
                raise ValueError(f"entry {name!r}: {error}") from error
            if checked is not value:
                observation = {**observation, name: checked}
        return observation


class _ArrayCheck:
    """Check the arrays of one space."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._shape, self._declared = shape, dtype
        self._usual = dtype  # dtype of the previous array, if it was another float type

    def __call__(self, value: Any) -> Any:
        if type(value) is np.ndarray and value.dtype is self._usual and value.shape == self._shape:
            return value
        array = np.asarray(value)
        converted = fit(array, self._shape, self._declared)
        if self._declared.kind != "f":
            return value if array.dtype == self._declared else converted
        self._usual = array.dtype
        return value


def _array_check(space: spaces.Space[Any]) -> _ArrayCheck | None:
    if isinstance(space, ARRAYS):
        return _ArrayCheck(space.shape or (), np.dtype(space.dtype))
    return None


def _is_scalar(value: Any, kinds: str) -> bool:
    array = np.asarray(value)
    return array.ndim == 0 and array.dtype.kind in kinds


def _traceback(error: Exception) -> str:
    """Return the traceback of a task's error, starting at the task's code."""
    own = error.__traceback__
    return "".join(traceback.format_exception(type(error), error, own and own.tb_next)).rstrip()
