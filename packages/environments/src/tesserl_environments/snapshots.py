"""Save and restore the states of environments, without a state API and without pickling.

An episode is a function of the random generators at its reset and of the actions since then. ``Resumable`` records
both. Restoring replays the actions and compares the result with the saved observation and generators. A wrapper may
carry state from one episode to the next (`Carrying`); this state is recorded at the reset too. An episode of more than
``MAX_ACTIONS`` steps cannot be restored.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from tesserl_environments.action_record import ActionRecord
from tesserl_environments.workers import WorkerEnvironments

MOST_SECONDS = 1e6
"""Largest timeout for a worker that replays an episode, in seconds; the system takes 32-bit milliseconds."""


@runtime_checkable
class Carrying(Protocol):
    """A wrapper with state that survives a reset, such as running statistics; snapshots include it."""

    def carried(self) -> Mapping[str, Any]:
        """Return this state as JSON data."""

    def carry(self, state: Mapping[str, Any]) -> None:
        """Continue from ``carried``."""


class Resumable(gym.Wrapper[Any, Any, Any, Any]):
    """Record an episode so that it can be restored; the outermost wrapper of a sub-environment.

    Args:
        environment: the environment; a replay also restores the state of its wrappers.
        index: index in the vector environment, whose ``restore`` passes all snapshots to every sub-environment.
    """

    def __init__(self, environment: gym.Env[Any, Any], index: int) -> None:
        super().__init__(environment)
        self._index = index
        self._generators = generators_of(environment)
        self._carrying = [layer for layer in _layers(environment) if isinstance(layer, Carrying)]
        self._start: dict[str, Any] = {}
        self._actions = ActionRecord()
        self._observation: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment; record the seed or, without a seed, the state of the generators."""
        if seed is None and hasattr(self.unwrapped, "ale"):  # its generators cannot be read, so draw a seed
            seed = int(self.unwrapped.np_random.integers(2**31))
        self._start = {"generators": self._generators.state()} if seed is None else {"seed": seed}
        if self._carrying:
            self._start["carried"] = [layer.carried() for layer in self._carrying]
        self._actions.clear()
        self._observation, info = self.env.reset(seed=seed, options=options)
        return self._observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment and record the action."""
        self._actions.append(action)
        result = self.env.step(action)
        self._observation = result[0]
        return result

    def snapshot(self) -> dict[str, Any]:
        """Return the record of the running episode as JSON data; ``actions`` is None if there are too many."""
        return {
            "start": _plain(self._start),
            "actions": self._actions.plain(),
            "observation": _plain(self._observation),
            "generators": _plain(self._generators.state()),
        }

    def restore(self, snapshots: list[dict[str, Any]]) -> bool:
        """Replay the episode of ``snapshots[index]``.

        Returns:
            True if observation and generators are the saved ones. If False, the environment is in another state and
            must be reset. This includes a snapshot with an action that the task does not accept.
        """
        snapshot = snapshots[self._index]
        if not snapshot["start"]:
            return True
        if "generators" in snapshot["start"]:
            self._generators.set_state(snapshot["start"]["generators"])
        carried = snapshot["start"].get("carried", [])
        if len(carried) != len(self._carrying):
            return False
        for layer, state in zip(self._carrying, carried, strict=True):
            layer.carry(state)
        self._observation, _ = self.env.reset(seed=snapshot["start"].get("seed"))
        self._start = snapshot["start"]
        actions = [np.array(action, self.env.action_space.dtype) for action in snapshot["actions"]]
        if not all(_takes(self.env.action_space, action) for action in actions):
            return False
        self._actions.load(actions)
        for action in actions:
            self._observation = self.env.step(action[()])[0]  # [()] turns a 0-d array back into a number
        same = _equal(self._observation, snapshot["observation"])
        return same and _equal(self._generators.state(), snapshot["generators"])


def _layers(environment: gym.Env[Any, Any]) -> Iterator[gym.Env[Any, Any]]:
    """Yield an environment and all environments that it wraps, the outermost first."""
    yield environment
    while isinstance(environment, gym.Wrapper):
        environment = environment.env
        yield environment


def _takes(space: spaces.Space[Any], action: NDArray[Any]) -> bool:
    """Return whether a task accepts an action; continuous actions may be out of bounds."""
    right = action.shape == space.shape
    return right and (isinstance(space, spaces.Box) or space.contains(action[()]))


def snapshot(environments: VectorEnv[Any, Any, Any]) -> list[dict[str, Any]] | None:
    """Return snapshots of all sub-environments.

    Natively vectorised environments need the methods ``snapshot()`` and ``restore(snapshots)``; without them the result
    is None.

    Raises:
        WorkerError: a worker raised, died or did not answer.
    """
    if hasattr(environments, "snapshot"):
        return list(environments.snapshot())
    return list(environments.call("snapshot")) if hasattr(environments, "call") else None


def restore(environments: VectorEnv[Any, Any, Any], snapshots: list[dict[str, Any]] | None) -> bool:
    """Restore all sub-environments; return whether all of them are in exactly their saved states.

    If an episode has more than ``MAX_ACTIONS`` steps, no environment is restored.

    Raises:
        ValueError: the snapshots are not a list with one entry per environment.
        WorkerError: a worker raised, died or did not answer; the timeout grows with the number of replayed steps.
    """
    if snapshots is None:
        return False
    if not isinstance(snapshots, list) or len(snapshots) != environments.num_envs:
        raise ValueError(f"environments: expected {environments.num_envs} snapshots; use those of as many environments")
    if any(snapshot["actions"] is None for snapshot in snapshots):
        return False
    if hasattr(environments, "restore"):
        return bool(environments.restore(snapshots))
    if isinstance(environments, WorkerEnvironments):
        longest = max(len(snapshot["actions"]) for snapshot in snapshots)
        with environments.within(min(environments.timeout * (longest + 1), MOST_SECONDS)):
            return all(environments.call("restore", snapshots))
    return hasattr(environments, "call") and all(environments.call("restore", snapshots))


class Generators:
    """The random generator of an unwrapped Gymnasium environment."""

    def __init__(self, environment: gym.Env[Any, Any]) -> None:
        self._environment = environment

    def state(self) -> dict[str, Any]:
        """Return the state of the generator."""
        return dict(self._environment.np_random.bit_generator.state)

    def forget(self) -> None:
        """Do nothing: only a seed and actions since the reset determine an episode."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the generator from the result of ``state``."""
        generator = self._environment.np_random.bit_generator
        if type(generator).__name__ != state["bit_generator"]:
            raise ValueError(
                f"the environment's random generator: expected {state['bit_generator']}, got "
                f"{type(generator).__name__}; resume with the versions in the manifest"
            )
        generator.state = state


class MinAtarGenerators:
    """The random generator of MinAtar, and its sticky action, which survives a reset."""

    def __init__(self, game: Any) -> None:
        self._game = game

    def state(self) -> dict[str, Any]:
        """Return the state of the generator and the sticky action."""
        return {**self._game.random.get_state(legacy=False), "last_action": int(self._game.last_action)}

    def forget(self) -> None:
        """Forget the sticky action, so that the next episode does not depend on the one before."""
        self._game.last_action = 0

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore both from the result of ``state``."""
        self._game.seed(0)  # makes the environment and its game share one generator again
        self._game.random.set_state({key: value for key, value in state.items() if key != "last_action"})
        self._game.last_action = state["last_action"]


def generators_of(environment: gym.Env[Any, Any]) -> Generators | MinAtarGenerators:
    """Return the object that reads and sets an environment's random state."""
    game = getattr(environment.unwrapped, "game", None)
    if isinstance(getattr(game, "random", None), np.random.RandomState):
        return MinAtarGenerators(game)
    return Generators(environment.unwrapped)


def _plain(value: Any) -> Any:
    """Convert arrays and NumPy scalars in nested data to lists and numbers, exactly."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value


def _equal(value: Any, saved: Any) -> bool:
    """Return whether a value equals the saved one; NaN equals NaN."""
    return json.dumps(_plain(value)) == json.dumps(saved)
