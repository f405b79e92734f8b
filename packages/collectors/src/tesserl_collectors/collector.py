"""Step a Gymnasium vector environment and write the steps directly into preallocated TensorDicts.

Training loops only use the methods of `interfaces.Collecting`, so that collectors in other processes can replace
`Collector`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from tensordict import NestedKey, TensorDictBase
from torch import Tensor

from tesserl_collectors.buffers import Buffers, Column
from tesserl_collectors.transfers import Uploads
from tesserl_environments import Boundary, ObservationLayout, autoreset_mode, snapshots
from tesserl_storage.fields import Fields

Act = Callable[..., Tensor]
"""Maps one tensor ``[N, ...]`` per observation key to actions ``[N, ...]``."""

Marks = Callable[[], Tensor]
"""Returns flags ``[N]``: whether the actions of the policy's last call were greedy."""

Records = Callable[[], Mapping[NestedKey, Tensor]]
"""Returns the entries ``[N, T, ...]`` that the policy recorded since the last call."""

Start = Callable[[NDArray[np.bool_]], None]
"""Called with flags ``[N]`` of environments that begin an episode, before the policy gets their first observation."""


@dataclass(frozen=True)
class Episode:
    """A finished training episode: the undiscounted sum of rewards, and the number of steps."""

    episode_return: float
    length: int


class Collector:
    """Collects transitions from a vector environment with a policy.

    It supports every autoreset mode of Gymnasium. The next observation of an episode's last step is always the true
    final observation. A reset step of a NEXT_STEP environment is marked as no transition (``mask`` false).

    Args:
        environments: any vector environment; the first ``collect`` resets it.
        layout: converts its observations to keys.
        policy: called without gradients, with one tensor ``[N, ...]`` per key of the layout.
        seeds: one seed per environment (a single seed if they are natively vectorised), for the first reset; ``None``
            for no seeds.
        device: device of the policy; the batches stay on the CPU.
        on_start: called with flags of environments that begin an episode, for policies with a memory.
        greedy: returns flags of greedy actions, which are added to the batches; None adds none.
        records: returns entries that the policy recorded, which are added to the batches; None adds none.

    Raises:
        ValueError: the environment does not declare its autoreset mode.
    """

    record = None  # this collector has no workers

    def __init__(
        self,
        environments: VectorEnv[Any, Any, Any],
        layout: ObservationLayout,
        policy: Act,
        *,
        seeds: list[int] | int | None = None,
        device: torch.device | str = "cpu",
        on_start: Start | None = None,
        greedy: Marks | None = None,
        records: Records | None = None,
    ) -> None:
        self.environments, self.layout, self.policy, self._on_start = environments, layout, policy, on_start
        self._greedy, self._records = greedy, records
        self._boundary = Boundary(environments, layout)
        self.num_envs = environments.num_envs
        self.version = 0
        self.episodes: list[Episode] = []
        self._mode = autoreset_mode(environments)
        self.seeds = seeds  # for the first reset
        self._upload = Uploads(device)
        self._is_remote = self._upload.device.type != "cpu"
        self._current: dict[str, NDArray[Any]] | None = None
        self._resetting: NDArray[np.bool_] = np.zeros(self.num_envs, np.bool_)  # in NEXT_STEP mode only
        self._returns = np.zeros(self.num_envs, np.float64)
        self._lengths = np.zeros(self.num_envs, np.int64)  # -1 before a step that resets
        self._steps = 0  # steps since the episode lengths were last updated
        self._buffers: dict[int, Buffers] = {}

    def set_weights(self, version: int, step: int) -> None:  # noqa: ARG002 - schedules act on the policy itself
        """Set the version of the weights for later batches; the policy shares its tensors with the learner.

        Args:
            version: number of updates that made the weights.
            step: environment steps of the run so far.
        """
        self.version = version

    def collect(self, num_steps: int) -> TensorDictBase:
        """Take ``num_steps`` steps in every environment.

        Args:
            num_steps: steps ``T`` of every environment.

        Returns:
            ``[N, T]``: the layout's keys, ``action``, ``mask`` (false where the step is no transition),
            ``policy_version``, ``greedy`` (bool, if the collector has ``greedy``), the policy's records and, under
            ``next``, the layout's keys, ``reward``, ``terminated``, ``truncated`` and ``done``. It is a view of buffers
            that the next call with the same ``T`` overwrites; copy what you keep.

        Raises:
            TaskError: an environment raised an error, or returned NaN or a value outside of its spaces.
            WorkerError: a worker raised an error, died or did not answer.
        """
        buffers = self._buffers.get(num_steps)
        if buffers is None:
            buffers = self._buffers[num_steps] = Buffers(self.num_envs, num_steps, self.layout)
        if self._current is None:
            self._current = self._reset()
        for key, array in self._current.items():
            buffers.columns[0].observation[key][:] = array
        resetting = self._resetting
        with torch.no_grad():
            for column in buffers.columns:
                if self.layout.mask is not None:
                    self._boundary.require_allowed(column.observation, self._resetting)
                actions = self._act(column)
                buffers.write_action(column, actions)
                if self._greedy is not None:
                    buffers.write_greedy(column, self._greedy())
                self._step(actions, column)
        buffers.write_following()
        if self._mode is AutoresetMode.NEXT_STEP:
            buffers.write_mask(resetting)
            self._resetting = self._resetting.copy()
        self._boundary.require_finite(buffers.following, buffers.reward, axis=1)
        self._boundary.require_allowed(buffers.following, buffers.terminated, axis=1)
        self._current = buffers.columns[-1].upcoming
        if buffers.filled_version != self.version:
            buffers.version.fill_(self.version)
            buffers.filled_version = self.version
        if self._records is not None:
            for key, record in self._records().items():
                buffers.batch.set(key, record)
        return buffers.batch

    def restart(self) -> None:
        """Make the next step reset all environments; unfinished episodes are dropped."""
        self._current = None
        self._resetting = np.zeros_like(self._resetting)
        self._returns[:] = 0.0
        self._lengths[:] = self._steps = 0

    def _reset(self) -> dict[str, NDArray[Any]]:
        current = self.layout.empty(self.num_envs)
        self._boundary.reset(current, seed=self.seeds)
        if self._on_start is not None:
            self._on_start(np.ones(self.num_envs, np.bool_))
        return current

    def _act(self, column: Column) -> NDArray[Any]:
        inputs = column.inputs
        if self._is_remote:
            inputs = tuple(self._upload(dict(zip(self.layout.keys, inputs, strict=True))).values())
        try:
            actions: NDArray[Any] = self.policy(*inputs).cpu().numpy()
        except (RuntimeError, ValueError):  # distributions raise these for observations that are not finite
            self._boundary.require_finite(column.observation)
            raise
        return actions

    def _step(self, actions: NDArray[Any], column: Column) -> None:
        """Step all environments and write the results to a column."""
        reward, terminated, truncated, info = self._boundary.step(actions, column.upcoming)
        done = np.logical_or(terminated, truncated, out=column.done)
        column.reward[:] = reward
        column.terminated[:] = terminated
        column.truncated[:] = truncated
        self._returns += reward
        self._steps += 1
        started = done
        if self._mode is AutoresetMode.NEXT_STEP:
            started, self._resetting = self._resetting, done
        if self._on_start is not None:
            self._on_start(started)
        if np.count_nonzero(done):
            self._finish(np.flatnonzero(done), column, info)

    def _finish(self, ended: NDArray[np.int64], column: Column, info: dict[str, Any]) -> None:
        """Record the episodes that ended, and store their final observations."""
        self._count_steps()
        for i in ended.tolist():
            self.episodes.append(Episode(float(self._returns[i]), int(self._lengths[i])))
            if self._mode is AutoresetMode.SAME_STEP:
                self._boundary.write_final(i, info, column.following)
        if self._mode is not AutoresetMode.SAME_STEP:  # the environments have not reset yet
            for key, array in column.following.items():
                array[ended] = column.upcoming[key][ended]
        self._returns[ended] = 0.0
        self._lengths[ended] = -1 if self._mode is AutoresetMode.NEXT_STEP else 0
        if self._mode is AutoresetMode.DISABLED:
            mask = np.zeros(self.num_envs, np.bool_)
            mask[ended] = True
            self._boundary.reset(column.upcoming, options={"reset_mask": mask})

    def _count_steps(self) -> None:
        self._lengths += self._steps
        self._steps = 0

    def pop_episodes(self) -> list[Episode]:
        """Return the episodes that ended since the last call, in order."""
        episodes, self.episodes = self.episodes, []
        return episodes

    def snapshot(self) -> dict[str, Any]:
        """Return the entries for a checkpoint, including the states of the environments."""
        return {"collector": self.state_dict(), "environments": snapshots.snapshot(self.environments)}

    def restore(self, saved: Mapping[str, Any]) -> bool:
        """Continue from a checkpoint; if an environment cannot be restored, reset all.

        Args:
            saved: mapping with the entries of ``snapshot``.

        Returns:
            Whether all environments are in their saved states.

        Raises:
            StorageError: the state belongs to other environments.
        """
        restored = snapshots.restore(self.environments, saved["environments"])
        self.load_state_dict(saved["collector"], restart=not restored)
        return restored

    def state_dict(self) -> dict[str, Any]:
        """Return the state between two calls of ``collect``, without the states of the environments."""
        current = self._current or {}
        self._count_steps()
        return {
            "current": {key: torch.from_numpy(array.copy()) for key, array in current.items()},
            "resetting": torch.from_numpy(self._resetting.copy()),
            "returns": torch.from_numpy(self._returns.copy()),
            "lengths": torch.from_numpy(self._lengths + self._resetting),
            "episodes": [[episode.episode_return, episode.length] for episode in self.episodes],
            "version": self.version,
        }

    def load_state_dict(self, state: Mapping[str, Any], *, restart: bool = False) -> None:
        """Continue from ``state_dict``.

        Args:
            state: result of ``state_dict``.
            restart: reset the environments and drop running episodes, because the environments could not be restored.

        Raises:
            StorageError: the state belongs to other environments.
        """
        fields = Fields(state, "collector")
        self.version = fields.integer("version")
        self.episodes = [Episode(*pair) for pair in fields.pairs("episodes")]
        current, wanted, every = fields.fields("current"), self.layout.empty(self.num_envs), (self.num_envs,)
        if restart or not current.value:
            return
        dtypes = {key: torch.from_numpy(array).dtype for key, array in wanted.items()}
        self._current = {key: current.tensor(key, wanted[key].shape, dtypes[key]).numpy().copy() for key in wanted}
        self._resetting = fields.tensor("resetting", every, torch.bool).numpy().copy()
        self._returns = fields.tensor("returns", every, torch.float64).numpy().copy()
        self._lengths = fields.tensor("lengths", every, torch.int64).numpy() - self._resetting
