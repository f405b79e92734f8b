"""Start groups in states that earlier trajectories visited, by a reset and a replay of their actions."""

from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from tesserl_environments.errors import TaskError
from tesserl_environments.seeds import derived_seed
from tesserl_environments.snapshots import generators_of
from tesserl_environments.starts import SeedStart

START_ACTIONS = "start_actions"
"""Name of the reset option with the actions that lead from a reset to a start."""


class VisitedStart(SeedStart):
    """Start a part of the groups in states that earlier trajectories visited.

    Such a state is reached by a reset with the seed of the earlier trajectory and a replay of its first actions. The
    other groups start from new resets; ``record`` keeps their trajectories. All environments must be `ReplayedStarts`.

    Sources: the vine of TRPO (Schulman et al. 2015, arXiv:1502.05477); VinePPO (Kazemnejad et al. 2024,
    arXiv:2410.01679).

    Args:
        seed: seed of the run. The reset of a start, the recorded trajectory and the step within it are drawn from this
            seed and the number of the start.
        fraction: fraction of the starts that are visited states, in (0, 1). They are evenly spaced; as long as no
            trajectory is recorded, all starts are new resets.
        num_kept: number of trajectories kept, the newest ones, at least 1.

    Raises:
        ValueError: ``fraction`` or ``num_kept`` is out of range.
    """

    def __init__(self, seed: int, *, fraction: float, num_kept: int) -> None:
        super().__init__(seed)
        if not 0 < fraction < 1:
            raise ValueError(f"fraction must be in (0, 1), got {fraction}; trajectories from resets are branched from")
        if num_kept < 1:
            raise ValueError(f"num_kept must be at least 1, got {num_kept}; keep the trajectories of an iteration")
        self.fraction = fraction
        self.trajectories: deque[tuple[int, NDArray[Any]]] = deque(maxlen=num_kept)
        """Start and actions ``[T, ...]`` of each trajectory kept, the oldest first."""

    def branch(self, start: int) -> tuple[int, NDArray[Any] | None]:
        """Return the start whose reset is used, and the actions ``[t, ...]`` to replay; None for a new reset."""
        is_visited = int((start + 1) * self.fraction) > int(start * self.fraction)
        if not is_visited or not self.trajectories:
            return start, None
        random = np.random.default_rng(derived_seed(self._seed, start, key=(1,)))
        origin, actions = self.trajectories[int(random.integers(len(self.trajectories)))]
        return origin, actions[: int(random.integers(len(actions)))]

    def arguments(self, start: int) -> tuple[int, dict[str, Any]]:
        """Return the seed of the reset, and the actions to replay if there are any."""
        origin, actions = self.branch(start)
        return super().arguments(origin)[0], {} if actions is None else {START_ACTIONS: actions}

    def record(self, start: int, actions: NDArray[Any]) -> None:
        """Keep a trajectory from a new reset.

        Call it only while no group is played, because it changes the result of `branch`.

        Args:
            start: start of the trajectory.
            actions: actions as the policy chose them, at least one, ``[T, ...]``.
        """
        self.trajectories.append((start, actions.copy()))


class ReplayedStarts(gym.Wrapper[Any, Any, Any, Any]):
    """Allow ``reset`` to replay actions, so that an episode continues from the state to which they lead.

    The replay passes through all wrappers inside of this one: a time limit counts the replayed steps.

    Args:
        environment: the environment with its other wrappers.
        label: name of the environment for errors, e.g. ``"environment 3 of CartPole-v1"``.
    """

    def __init__(self, environment: gym.Env[Any, Any], label: str) -> None:
        super().__init__(environment)
        self._label = label
        self._generators = generators_of(environment)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment, then take the actions of ``options["start_actions"]``; return the last observation.

        Actions beyond the bounds of a ``Box`` are clipped, as in training.

        Raises:
            TaskError: the episode ended during the replay.
        """
        options = dict(options or {})
        actions: Any = options.pop(START_ACTIONS, ())
        self._generators.forget()
        observation, info = self.env.reset(seed=seed, options=options or None)
        space = self.env.action_space
        if isinstance(space, spaces.Box) and len(actions):
            actions = np.clip(actions, space.low, space.high)
        for index, action in enumerate(actions):
            observation, _, terminated, truncated, info = self.env.step(action)
            if terminated or truncated:
                raise TaskError(
                    f"{self._label}: expected the episode of seed {seed} to continue after a replay of its first "
                    f"{len(actions)} actions, got its end after {index + 1}; make the task depend on its seed and "
                    "actions alone, or choose starts of kind seed"
                )
        return observation, info
