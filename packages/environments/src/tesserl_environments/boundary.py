"""Check all arrays that a vector environment returns, at the only place where they enter the program."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

from tesserl_environments.arrays import NUMBERS
from tesserl_environments.errors import TaskError
from tesserl_environments.masks import ACTION_MASK
from tesserl_environments.observations import ObservationLayout
from tesserl_environments.workers import WorkerEnvironments, step

REMEDY = "correct the task, or replace such values in a wrapper"


class Boundary:
    """Reset and step a vector environment, and check that its results have the declared shapes and dtypes.

    In Gymnasium's own vector environments each single environment checks its results (``Checked``). The results of
    other vector environments are checked here.

    Args:
        environments: any vector environment.
        layout: converts its observations to keys.
    """

    def __init__(self, environments: VectorEnv[Any, Any, Any], layout: ObservationLayout) -> None:
        self.environments, self.layout = environments, layout
        self._floats = [key for key in layout.keys if layout.dtypes[key].kind == "f"]
        self._shape = (environments.num_envs,)
        self._is_checked = isinstance(environments.unwrapped, SyncVectorEnv | AsyncVectorEnv)

    def reset(
        self, out: Mapping[str, NDArray[Any]], *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> None:
        """Reset environments and write the observations of all of them.

        Args:
            out: one array ``[N, *shape]`` per key of the layout.
            seed: see ``VectorEnv.reset``.
            options: see ``VectorEnv.reset``.

        Raises:
            TaskError: an observation is not in its space, or not finite.
            WorkerError: a worker raised an error, died or did not answer.
        """
        batch, _ = self.environments.reset(seed=seed, options=options)
        self.write(batch, out)
        self.require_finite(out)

    def step(
        self, actions: NDArray[Any], out: Mapping[str, NDArray[Any]]
    ) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Step all environments and write their observations.

        Args:
            actions: ``[N, ...]``.
            out: one array ``[N, *shape]`` per key of the layout.

        Returns:
            Rewards ``[N]``, ``terminated`` ``[N]``, ``truncated`` ``[N]`` and the information.

        Raises:
            TaskError: a result has another shape or dtype than declared.
            WorkerError: a worker raised an error, died or did not answer.
        """
        batch, reward, terminated, truncated, info = step(self.environments, actions)
        if not self._is_checked:
            reward, terminated, truncated = np.asarray(reward), np.asarray(terminated), np.asarray(truncated)
            self._require("rewards", "numbers", reward, NUMBERS)
            self._require("terminated", "booleans", terminated, "b")
            self._require("truncated", "booleans", truncated, "b")
        self.write(batch, out, check=not self._is_checked)
        return reward, terminated, truncated, info

    def write(self, batch: Any, out: Mapping[str, NDArray[Any]], index: Any = ..., *, check: bool = True) -> None:
        """Write observations.

        Args:
            batch: observations of the environments, in order.
            out: one array ``[..., *shape]`` for each key of the layout.
            index: index of ``out`` to which the batch is written.
            check: see ``ObservationLayout.write``.

        Raises:
            TaskError: an observation is not in its space.
        """
        try:
            self.layout.write(batch, out, index, check=check)
        except (KeyError, ValueError) as error:
            problem = f"it has no entry {error}" if isinstance(error, KeyError) else error
            raise TaskError(f"{task_name(self.environments)} returned a wrong observation: {problem}") from error

    def require_finite(
        self, observations: Mapping[str, NDArray[Any]], reward: NDArray[Any] | None = None, *, axis: int = 0
    ) -> None:
        """Reject observations and rewards that are NaN or infinite, for many steps at once.

        Args:
            observations: an array ``[..., N, ...]`` for each key of the layout.
            reward: rewards, ``[..., N, ...]``.
            axis: axis of the environments.

        Raises:
            TaskError: a value is not finite; the message names its environment.
        """
        for key in self._floats:
            self._require_finite(f"an observation ({key})", observations[key], axis)
        if reward is not None:
            self._require_finite("a reward", reward, axis)

    def require_allowed(
        self, observations: Mapping[str, NDArray[Any]], exempt: NDArray[np.bool_] | None = None, *, axis: int = 0
    ) -> None:
        """Reject states in which no action is allowed; do nothing if the task has no masks.

        Args:
            observations: an array ``[..., N, ...]`` for each key of the layout.
            exempt: states in which no action is taken, ``[..., N]``; they are not checked.
            axis: axis of the environments.

        Raises:
            TaskError: a state allows no action; the message names its environment.
        """
        if self.layout.mask is None:
            return
        allowed = self.layout.mask.allows(observations[ACTION_MASK])
        if exempt is not None:
            allowed |= exempt
        if not allowed.all():
            index = int(np.argwhere(~allowed)[0][axis])
            raise TaskError(
                f"{label(self.environments, index)}: {ACTION_MASK} must allow at least one option of every choice in a "
                "state that is not terminal, got none; end the episode there, or allow an action that does nothing"
            )

    def _require_finite(self, subject: str, values: NDArray[Any], axis: int) -> None:
        finite = np.isfinite(values)
        if not finite.all():
            index = tuple(np.argwhere(~finite)[0].tolist())
            where = f" at position {index[-1]}" if len(index) > axis + 1 and values.shape[-1] > 1 else ""
            raise TaskError(
                f"{label(self.environments, index[axis])} returned {subject} that is not finite: "
                f"{values[index]}{where}; {REMEDY}"
            )

    def _require(self, subject: str, expected: str, got: NDArray[Any], kinds: str) -> None:
        if got.shape != self._shape or got.dtype.kind not in kinds:
            raise TaskError(
                f"{task_name(self.environments)}: {subject} must be {self._shape[0]} {expected}, got an array of shape "
                f"{got.shape} and type {got.dtype}; correct the task"
            )

    def write_final(self, i: int, info: Mapping[str, Any], out: Mapping[str, NDArray[Any]]) -> None:
        """Write the last observation of an episode that ended, in SAME_STEP mode.

        Args:
            i: number of the environment.
            info: the information that ``step`` returned.
            out: one array ``[N, *shape]`` for each key of the layout; row ``i`` is written.

        Raises:
            TaskError: the information has no final observation, or it is not in its space.
        """
        final = info.get("final_obs")
        if final is None:
            raise TaskError(
                f"{task_name(self.environments)}: an episode ended in autoreset mode SAME_STEP, and info has no "
                "final_obs; add it, or set metadata['autoreset_mode'] to the mode of the environment"
            )
        one = {key: value[i] for key, value in final.items()} if isinstance(final, Mapping) else final[i]
        self.write(_batch_of_one(one), out, slice(i, i + 1))


def task_name(environments: VectorEnv[Any, Any, Any]) -> str:
    """Return the id of the task, or the class name of the environment if it has no id."""
    bare = environments.unwrapped
    return bare.spec.id if bare.spec is not None else type(bare).__name__


def label(environments: VectorEnv[Any, Any, Any], index: int) -> str:
    """Return the name of one environment for error messages."""
    worker = " worker" if isinstance(environments.unwrapped, WorkerEnvironments) else ""
    return f"environment{worker} {index} of {task_name(environments)}"


def _batch_of_one(observation: Any) -> Any:
    if isinstance(observation, Mapping):
        return {key: np.asarray(value)[None] for key, value in observation.items()}
    return np.asarray(observation)[None]
