"""Environments that envpool steps in C++ threads (Weng et al. 2022, arXiv:2206.10558)."""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from tesserl_environments.errors import EnvironmentArgumentError

SEEDS = 2**31
"""Upper bound of seeds: envpool takes non-negative 32-bit integers."""

ALE = "ALE/"
"""Prefix of the ids of the Arcade Learning Environment."""


class EnvpoolEnvironments(VectorEnv[Any, NDArray[Any], NDArray[Any]]):
    """envpool's environments: one pool for all in NEXT_STEP mode, one pool per environment in DISABLED mode.

    envpool takes a seed only when a pool is made, so every ``reset`` makes new pools. In DISABLED mode it makes only
    the pools of the environments that are reset, which takes 0.2 s for an Atari game. Observations are envpool's:
    images with channels first and the oldest frame first; for Atari, copies of the first frame fill the stack at the
    start of an episode. The state of an environment can be neither read nor set. ``info`` is empty.

    Args:
        task: envpool's name of the task, e.g. ``"Pong-v5"``.
        num_envs: number of environments.
        autoreset_mode: NEXT_STEP or DISABLED. In NEXT_STEP mode, the step after the end of an episode ignores its
            action and returns the first observation of the next episode. In DISABLED mode,
            ``reset(options={"reset_mask": ...})`` starts episodes.
        max_length: largest number of steps of an episode, which is then truncated; None for the task's own limit.
        **options: arguments of ``envpool.make``.

    Raises:
        EnvironmentArgumentError: envpool is not installed or has no such task.
        TypeError: the task does not take the options.
    """

    def __init__(
        self,
        task: str,
        num_envs: int,
        *,
        autoreset_mode: AutoresetMode,
        max_length: int | None = None,
        **options: Any,
    ) -> None:
        if importlib.util.find_spec("envpool") is None:
            what = "vectorization: envpool needs the package of that name, for Python 3.11 or newer"
            raise EnvironmentArgumentError(f'{what}; install "tesserl-environments[envpool]"')
        self._envpool = importlib.import_module("envpool")
        if task not in self._envpool.list_all_envs():
            raise EnvironmentArgumentError(
                f"id: envpool has no {task}; choose one of envpool.list_all_envs() or vectorization sync"
            )
        shared = autoreset_mode is AutoresetMode.NEXT_STEP
        self._sizes = [num_envs] if shared else [1] * num_envs
        self._task, self._options = task, options
        if not shared:
            self._options = {**options, "num_threads": 1, "thread_affinity_offset": -1}
        spec = self._envpool.make_spec(task, **self._options)
        if max_length is not None:
            self._options = {**self._options, "max_episode_steps": min(max_length, spec.config.max_episode_steps)}
        self.num_envs, self.spec = num_envs, EnvSpec(task)
        self.metadata = {"autoreset_mode": autoreset_mode}
        self.single_observation_space = spec.gymnasium_observation_space
        self.single_action_space = spec.gymnasium_action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._pools: list[Any] = [None] * len(self._sizes)
        self._observations: list[Any] = [None] * len(self._sizes)
        self._generator = np.random.default_rng()

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Make pools and start an episode in each environment.

        Args:
            seed: one seed per environment, or the first of consecutive seeds; ``None`` draws them.
            options: ``reset_mask``, bool ``[N]``, in DISABLED mode: environments to reset; all of them by default.

        Returns:
            The observations of all environments, and an empty ``info``.
        """
        mask = np.ones(self.num_envs, np.bool_) if options is None else options["reset_mask"]
        if seed is None:
            seed = self._generator.integers(SEEDS, size=self.num_envs).tolist()
        given = np.arange(seed, seed + self.num_envs) if isinstance(seed, int) else np.array(seed)
        for pool, (size, chosen) in enumerate(zip(self._sizes, np.split(mask, len(self._sizes)), strict=True)):
            if chosen.any():
                seeds = (given[pool * size : (pool + 1) * size] % SEEDS).tolist()
                self._pools[pool] = self._envpool.make(
                    self._task, env_type="gymnasium", num_envs=size, seed=seeds, **self._options
                )
                self._observations[pool] = self._pools[pool].reset()[0]
        return _joined(self._observations), {}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[Any, NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Take one action in every environment; all pools work at the same time."""
        for pool, part in zip(self._pools, np.split(actions, len(self._sizes)), strict=True):
            pool.send(part)
        results = [pool.recv()[:4] for pool in self._pools]
        self._observations = [result[0] for result in results]
        observation, reward, terminated, truncated = (_joined(parts) for parts in zip(*results, strict=True))
        return observation, reward, terminated, truncated, {}

    def close_extras(self, **kwargs: Any) -> None:  # noqa: ARG002 - the signature is Gymnasium's
        """Release the pools, which ends their threads."""
        for pool in filter(None, self._pools):
            pool.close()
        self._pools = [None] * len(self._sizes)


def task_name(environment_id: str) -> str:
    """Return envpool's name of a task; envpool omits the namespace of ALE games."""
    return environment_id.removeprefix(ALE)


def _joined(parts: Sequence[Any]) -> Any:
    """Concatenate batches; they may be dictionaries."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], Mapping):
        return {key: _joined([part[key] for part in parts]) for key in parts[0]}
    return np.concatenate(parts)
