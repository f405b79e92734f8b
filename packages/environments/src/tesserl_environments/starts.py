"""Trajectories in groups: every slot of a vector environment is reset to the start of the group it plays for."""

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
"""The reset option that carries the state of a start."""


class Start(Protocol):
    """Interface that passes a group's start to ``reset``."""

    def arguments(self, start: int) -> tuple[int, dict[str, Any]]:
        """Return the seed and the options of ``reset`` for a start."""

    def learn(self, start: int, environments: VectorEnv[Any, Any, Any], slot: int) -> None:
        """Record the state of a start after its first reset, in this slot."""


class SeedStart:
    """The same reset seed for every trajectory of a group.

    Args:
        seed: of the run; each start has a seed of its own, drawn from it.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def arguments(self, start: int) -> tuple[int, dict[str, Any]]:
        """Return the seed of the start."""
        return derived_seed(self._seed, start), {}

    def learn(self, start: int, environments: VectorEnv[Any, Any, Any], slot: int) -> None:
        """Nothing: the seed is all."""


class LevelStart(SeedStart):
    """The same level, by an option of the task's reset.

    Args:
        seed: of the run.
        option: key of the option; its values are 0, 1, ...
    """

    def __init__(self, seed: int, option: str) -> None:
        super().__init__(seed)
        self._option = option

    def arguments(self, start: int) -> tuple[int, dict[str, Any]]:
        """Return the level, and a seed for what the level does not determine."""
        return super().arguments(start)[0], {self._option: start}


class StateStart(SeedStart):
    """The state that one environment was reset to, set in the others; they must be ``RestoredStarts``."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._known: tuple[int, Any] | None = None  # of the latest start; groups are begun one after the other

    def arguments(self, start: int) -> tuple[int, dict[str, Any]]:
        """Return the seed, and from the second reset on also the state."""
        seed, _ = super().arguments(start)
        if self._known is None or self._known[0] != start:
            return seed, {}
        return seed, {START_STATE: self._known[1]}

    def learn(self, start: int, environments: VectorEnv[Any, Any, Any], slot: int) -> None:
        """Asks the environment for the state that it has just been reset to."""
        call: Callable[[str], tuple[Any, ...]] = environments.call  # type: ignore[attr-defined]
        self._known = start, call("start_state")[slot]


class GroupStarts(VectorWrapper[Any, Any, Any]):
    """Gives every slot that has finished a trajectory the next one to play; none is left waiting for its group.

    ``begin`` says how many groups are wanted. From then on ``reset`` assigns trajectories, those of one group after the
    other. Slots for which there is none play on; what they do belongs to no group.

    Args:
        environments: in DISABLED autoreset mode.
        start: how starts are given to them.
        group_size: trajectories of each group.
        num_starts: starts that return in turn; None: each is new.

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
        self.next_group = 0  # of the run, never repeated
        self._start, self._num_starts = start, num_starts
        self._waiting: deque[tuple[int, int]] = deque()  # group and number within it
        self._playing = np.full(environments.num_envs, -1)
        self._is_new = True
        self.assigned: list[list[int]] = []  # for each slot the groups of its trajectories, in order; -1: none
        self.members: list[list[int]] = []  # for each slot the numbers of its trajectories within their groups
        self.unfinished = 0

    def begin(self, num_groups: int) -> None:
        """Forgets everything and wants this many new groups; the next ``reset`` must be one of all slots."""
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
        """Reset all slots, or those of ``options["reset_mask"]``, each to its given start.

        Args:
            seed: not used; starts bring their own.
            options: see above.
        """
        if self._is_new:  # the first reset of a vector environment must be one of all
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
        seed, options = self._start.arguments(start)
        first = members[:1] if group >= 0 and START_STATE not in options else members
        observation = self._reset_slots(first, seed, options)
        if group < 0:
            return observation
        self._start.learn(start, self.env, first[0])
        rest = members[len(first) :]
        return self._reset_slots(rest, *self._start.arguments(start)) if rest else observation

    def _reset_slots(self, members: list[int], seed: int, options: dict[str, Any]) -> Any:
        mask = np.zeros(self.num_envs, np.bool_)
        mask[members] = True
        seeds: Any = [seed] * self.num_envs
        return self.env.reset(seed=seeds, options={"reset_mask": mask, **options})[0]


class RestoredStarts(gym.Wrapper[Any, Any, Any, Any]):
    """An environment whose reset can put it into a given state.

    The state is that of ``get_state`` and ``set_state``, of an Atari game, or of MuJoCo.

    Args:
        environment: the innermost wrapper, so that wrappers around it see a restored start like any other.

    Raises:
        TypeError: the environment has none of these.
    """

    def __init__(self, environment: gym.Env[Any, Any]) -> None:
        super().__init__(environment)
        self._access = _state_access(environment.unwrapped)

    def start_state(self) -> Any:
        """Return the current state, to be passed to ``reset`` as ``options["start_state"]``."""
        return self._access[0]()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset, then set the state if one is given."""
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
