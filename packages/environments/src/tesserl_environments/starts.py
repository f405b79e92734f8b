"""Play trajectories in groups: each slot of a vector environment is reset to the start of its group."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from numpy.typing import NDArray

from tesserl_environments.seeds import derived_seed
from tesserl_environments.workers import autoreset_mode

START_STATE = "start_state"
"""Name of the reset option with the state of a start."""


class Start(Protocol):
    """Interface of the ways to give all trajectories of a group the same start."""

    def arguments(self, start: int) -> tuple[int, dict[str, Any]]:
        """Return the seed and the options of ``reset`` for a start."""

    def learn(self, start: int, environments: VectorEnv[Any, Any, Any], slot: int) -> None:
        """Record the state of a start after its first reset, which happened in this slot."""


class SeedStart:
    """Reset all trajectories of a group with the same seed.

    Args:
        seed: seed of the run; the seed of each start is derived from it.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def arguments(self, start: int) -> tuple[int, dict[str, Any]]:
        """Return the seed of the start."""
        return derived_seed(self._seed, start), {}

    def learn(self, start: int, environments: VectorEnv[Any, Any, Any], slot: int) -> None:
        """Do nothing: the seed determines the start."""


class LevelStart(SeedStart):
    """Reset all trajectories of a group to the same level, by an option of the task's reset.

    Args:
        seed: seed of the run.
        option: key of the option; its values are the numbers of the starts: 0, 1, ...
    """

    def __init__(self, seed: int, option: str) -> None:
        super().__init__(seed)
        self._option = option

    def arguments(self, start: int) -> tuple[int, dict[str, Any]]:
        """Return the level, and a seed for all randomness that the level does not determine."""
        return super().arguments(start)[0], {self._option: start}


class StateStart(SeedStart):
    """Copy the start state of a group's first environment to the others; all must be ``RestoredStarts``."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._known: tuple[int, Any] | None = None  # latest start and its state; groups begin one after the other

    def arguments(self, start: int) -> tuple[int, dict[str, Any]]:
        """Return the seed and, from the second reset on, the state."""
        seed, _ = super().arguments(start)
        if self._known is None or self._known[0] != start:
            return seed, {}
        return seed, {START_STATE: self._known[1]}

    def learn(self, start: int, environments: VectorEnv[Any, Any, Any], slot: int) -> None:
        """Read the state after the reset from the environment."""
        call: Callable[[str], tuple[Any, ...]] = environments.call  # type: ignore[attr-defined]
        self._known = start, call("start_state")[slot]


class GroupStarts(VectorWrapper[Any, Any, Any]):
    """Assign the next trajectory to every slot that has finished one; no slot waits for its group.

    ``begin`` sets the number of groups. After that ``reset`` assigns trajectories, group by group. When none are left,
    slots continue to play without a group.

    Args:
        environments: in DISABLED autoreset mode.
        start: gives all trajectories of a group the same start.
        group_size: trajectories per group.
        num_starts: number of starts, used in turn; None for a new start per group.

    Raises:
        ValueError: the environments reset themselves.
    """

    def __init__(
        self, environments: VectorEnv[Any, Any, Any], start: Start, *, group_size: int, num_starts: int | None = None
    ) -> None:
        if autoreset_mode(environments) is not AutoresetMode.DISABLED:
            raise ValueError(
                f"environments of groups: expected autoreset mode DISABLED, got {autoreset_mode(environments).value}; "
                "a slot starts a trajectory when it is given one"
            )
        super().__init__(environments)
        self.group_size = group_size
        self.next_group = 0  # counts over the whole run
        self.start, self._num_starts = start, num_starts
        self._waiting: deque[tuple[int, int]] = deque()  # group and number within it
        self._playing = np.full(environments.num_envs, -1)
        self._is_new = True
        self.assigned: list[list[int]] = []  # groups of each slot's trajectories, in order; -1: none
        self.members: list[list[int]] = []  # numbers of each slot's trajectories within their groups
        self.unfinished = 0

    def begin(self, num_groups: int) -> None:
        """Begin this many new groups and drop unfinished ones; the next ``reset`` must reset all slots."""
        groups = range(self.next_group, self.next_group + num_groups)
        self.next_group += num_groups
        self._waiting = deque((group, member) for group in groups for member in range(self.group_size))
        self.unfinished = len(self._waiting)
        self._playing[:] = -1
        self.assigned = [[] for _ in range(self.num_envs)]
        self.members = [[] for _ in range(self.num_envs)]

    def reset(
        self,
        *,
        seed: Any = None,  # noqa: ARG002 - the signature of a vector environment
        options: Mapping[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Reset all slots, or those of ``options["reset_mask"]``, each to the start of its group.

        Args:
            seed: not used; the starts have their own seeds.
            options: see above.
        """
        if self._is_new:  # the first reset of a vector environment must reset all
            self.env.reset()
            self._is_new = False
        mask = np.ones(self.num_envs, np.bool_) if options is None else options["reset_mask"]
        slots: dict[int, list[int]] = {}
        for slot in np.flatnonzero(mask).tolist():
            self.unfinished -= int(self._playing[slot] >= 0)
            group, member = self._waiting.popleft() if self._waiting else (-1, -1)
            self._playing[slot] = group
            self.assigned[slot].append(group)
            self.members[slot].append(member)
            slots.setdefault(group, []).append(slot)
        observation: Any = None
        for group, members in slots.items():
            observation = self._reset(group, members)
        return observation, {}

    def _reset(self, group: int, members: list[int]) -> Any:
        """Reset slots to the start of one group; slots without a group to any start."""
        start = max(group, 0) if self._num_starts is None else max(group, 0) % self._num_starts
        seed, options = self.start.arguments(start)
        first = members[:1] if group >= 0 and START_STATE not in options else members
        observation = self._reset_slots(first, seed, options)
        if group < 0:
            return observation
        self.start.learn(start, self.env, first[0])
        rest = members[len(first) :]
        return self._reset_slots(rest, *self.start.arguments(start)) if rest else observation

    def _reset_slots(self, members: list[int], seed: int, options: dict[str, Any]) -> Any:
        mask = np.zeros(self.num_envs, np.bool_)
        mask[members] = True
        seeds: Any = [seed] * self.num_envs
        return self.env.reset(seed=seeds, options={"reset_mask": mask, **options})[0]


class RestoredStarts(gym.Wrapper[Any, Any, Any, Any]):
    """Allow ``reset`` to put an environment into a given state.

    It supports environments with ``get_state`` and ``set_state``, Atari games and MuJoCo tasks.

    Args:
        environment: the environment; this must be the innermost wrapper, so that other wrappers treat a restored start
            like any reset.

    Raises:
        TypeError: the environment is none of these.
    """

    def __init__(self, environment: gym.Env[Any, Any]) -> None:
        super().__init__(environment)
        self._access = _state_access(environment.unwrapped)

    def start_state(self) -> Any:
        """Return the current state; pass it to ``reset`` as ``options["start_state"]``."""
        return self._access[0]()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment, then set the state if one is given."""
        options = dict(options or {})
        start = options.pop(START_STATE, None)
        observation, info = self.env.reset(seed=seed, options=options or None)
        return (observation if start is None else self._access[1](start)), info


def _state_access(environment: Any) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    """Return a function that reads the state and one that sets it and returns the observation."""
    if hasattr(environment, "get_state") and hasattr(environment, "set_state"):

        def set_state(state: Any) -> Any:
            observation = environment.set_state(state)
            return environment._get_obs() if observation is None else observation

        return environment.get_state, set_state
    if hasattr(environment, "ale"):

        def restore(state: Any) -> Any:
            environment.ale.restoreState(state)
            return environment._get_obs()

        return environment.ale.cloneState, restore
    if hasattr(environment, "data") and hasattr(environment, "set_state"):

        def set_positions(state: tuple[NDArray[Any], NDArray[Any]]) -> Any:
            environment.set_state(*state)
            return environment._get_obs()

        return lambda: (environment.data.qpos.copy(), environment.data.qvel.copy()), set_positions
    raise TypeError(
        f"starts: {type(environment).__name__} has no state to set; it needs get_state() and set_state(state), "
        "or choose starts of kind seed"
    )
