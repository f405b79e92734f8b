"""Step environments one after the other in this process."""

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import iterate
from numpy.typing import NDArray

Steps = tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]


class SyncEnvironments(SyncVectorEnv):
    """Gymnasium's ``SyncVectorEnv`` with less overhead and the same results.

    Box observations are written directly to the batch array, and empty ``info`` dictionaries are not merged.
    """

    def step(self, actions: Any) -> Steps:
        """Step all environments, see ``SyncVectorEnv.step``."""
        same_step = self.autoreset_mode is AutoresetMode.SAME_STEP
        if self.autoreset_mode is AutoresetMode.NEXT_STEP or not isinstance(self.single_observation_space, spaces.Box):
            return super().step(actions)
        if not same_step and self._autoreset_envs.any():
            raise RuntimeError(f"environments that have ended must be reset first, got {self._autoreset_envs}")
        infos: dict[str, Any] = {}
        observations: Any = self._observations
        rewards, terminations, truncations = self._rewards, self._terminations, self._truncations
        chosen = zip(self.envs, iterate(self.action_space, actions), strict=True)
        for i, (environment, action) in enumerate(chosen):
            observation, reward, terminated, truncated, info = environment.step(action)
            rewards[i], terminations[i], truncations[i] = reward, terminated, truncated
            if same_step and (terminated or truncated):
                infos = self._add_info(infos, {"final_obs": observation, "final_info": info}, i)
                observation, info = environment.reset()
            if info:
                infos = self._add_info(infos, info, i)
            observations[i] = self._env_obs[i] = observation
        self._autoreset_envs = np.logical_or(terminations, truncations)
        whole = observations.copy() if self.copy else observations
        return whole, rewards.copy(), terminations.copy(), truncations.copy(), infos
