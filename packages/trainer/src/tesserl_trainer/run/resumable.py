"""Environments that can be put back to where they were, without a state API and without pickling.

An episode is a function of the random generators at its reset and of the actions since. ``Resumable`` remembers both;
restoring replays them and compares what comes out with what was there.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv


class Resumable(gym.Wrapper[Any, Any, Any, Any]):
    """Outermost wrapper of one sub-environment.

    Args:
        environment: the environment; its wrappers are rebuilt by the replay too.
        index: position in the vector environment, which restores all sub-environments by one call.
    """

    def __init__(self, environment: gym.Env[Any, Any], index: int) -> None:
        super().__init__(environment)
        self._index = index
        self._start: dict[str, Any] = {}
        self._actions: list[Any] = []
        self._observation: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets, remembering the seed or, without one, the generators as they are."""
        self._start = {"generators": generators_state(self.env)} if seed is None else {"seed": seed}
        self._actions = []
        self._observation, info = self.env.reset(seed=seed, options=options)
        return self._observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps, remembering the action."""
        self._actions.append(action)
        result = self.env.step(action)
        self._observation = result[0]
        return result

    def snapshot(self) -> dict[str, Any]:
        """How the running episode came about, as plain JSON data."""
        return {
            "start": self._start,
            "actions": [np.asarray(action).tolist() for action in self._actions],
            "observation": _plain(self._observation),
            "generators": generators_state(self.env),
        }

    def restore(self, snapshots: list[dict[str, Any]]) -> bool:
        """Replays the episode of ``snapshots[index]``.

        Returns:
            Whether observation and generators came out as they were. Where they did not, the environment is in some
            state of its own; reset it.
        """
        snapshot = snapshots[self._index]
        if not snapshot["start"]:
            return True
        if "generators" in snapshot["start"]:
            set_generators_state(self.env, snapshot["start"]["generators"])
        self._observation, _ = self.env.reset(seed=snapshot["start"].get("seed"))
        self._start = snapshot["start"]
        space = self.env.action_space
        self._actions = [np.asarray(action, space.dtype) for action in snapshot["actions"]]
        if not space.shape:
            self._actions = [action[()] for action in self._actions]
        for action in self._actions:
            self._observation = self.env.step(action)[0]
        same = _plain(self._observation) == snapshot["observation"]
        return same and generators_state(self.env) == snapshot["generators"]


def snapshot(environments: VectorEnv[Any, Any, Any]) -> list[dict[str, Any]] | None:
    """Snapshots of all sub-environments, or ``None`` where they cannot be taken (natively vectorised ones)."""
    if not hasattr(environments, "call"):
        return None
    return list(environments.call("snapshot"))


def restore(environments: VectorEnv[Any, Any, Any], snapshots: list[dict[str, Any]] | None) -> bool:
    """Restores all sub-environments; tells whether every one of them is exactly where it was."""
    if snapshots is None or not hasattr(environments, "call"):
        return False
    return all(environments.call("restore", snapshots))


def generators_state(environment: gym.Env[Any, Any]) -> dict[str, Any]:
    """State of the environment's random generators, as plain JSON data."""
    inner = environment.unwrapped
    game: Any = getattr(inner, "game", None)
    random = getattr(game, "random", None)
    if isinstance(random, np.random.RandomState):  # MinAtar: one generator, and an action that survives a reset
        return {"minatar": _plain(random.get_state(legacy=False)), "last_action": int(game.last_action)}
    return {"np_random": _plain(inner.np_random.bit_generator.state)}


def set_generators_state(environment: gym.Env[Any, Any], state: dict[str, Any]) -> None:
    """Puts the generators back to what ``generators_state`` returned."""
    inner = environment.unwrapped
    if "minatar" in state:
        game = inner.game  # type: ignore[attr-defined]
        game.seed(0)  # makes game and rules share one generator again
        game.random.set_state(state["minatar"])
        game.last_action = state["last_action"]
        return
    saved = state["np_random"]
    if type(inner.np_random.bit_generator).__name__ != saved["bit_generator"]:
        raise ValueError(
            f"the environment's random generator: expected {saved['bit_generator']}, got "
            f"{type(inner.np_random.bit_generator).__name__}; resume with the versions in the manifest"
        )
    inner.np_random.bit_generator.state = saved


def _plain(value: Any) -> Any:
    """Arrays and NumPy scalars as lists and numbers, through mappings and sequences; floats keep every bit."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value
