"""Vectorised CartPole with the results of Gymnasium's single environment."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

Float = NDArray[np.float64]


class CartPoleEnvironments(VectorEnv[NDArray[np.float32], NDArray[np.int64], NDArray[Any]]):
    """Step many CartPoles at once, with exactly the episodes of Gymnasium's single environment; for evaluation.

    Gymnasium's vectorised CartPole computes in float32, draws all starts from one generator and resets itself. This
    class is in DISABLED mode, and for each seed the start is that of Gymnasium's single environment.

    Args:
        num_envs: number of environments.
        max_episode_steps: steps after which an episode is truncated.
        sutton_barto_reward: see Gymnasium's task.
    """

    def __init__(self, num_envs: int, max_episode_steps: int, *, sutton_barto_reward: bool = False) -> None:
        self._single: Any = CartPoleEnv(sutton_barto_reward=sutton_barto_reward)  # untyped; has the constants
        self.num_envs = num_envs
        self.metadata = {**CartPoleEnv.metadata, "autoreset_mode": AutoresetMode.DISABLED}
        self.single_observation_space = self._single.observation_space
        self.single_action_space = self._single.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._max_episode_steps = max_episode_steps
        self._rewards = (0.0, -1.0) if sutton_barto_reward else (1.0, 1.0)  # of a step, and of the last step
        self._state: Float = np.zeros((4, num_envs))
        self._steps = np.zeros(num_envs, np.int64)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Reset environments.

        Args:
            seed: one seed per environment, or the first of consecutive seeds. None draws the starts one after the other
                from the generator of the last seed.
            options: ``reset_mask``, bool ``[N]``: environments to reset; all of them by default.

        Returns:
            Observations ``[N, 4]`` of all environments, and an empty dictionary.
        """
        chosen = (options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_))
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed
        for i in np.flatnonzero(chosen).tolist():
            self._single.reset(seed=None if seeds is None else seeds[i])
            self._state[:, i] = self._single.state
        self._steps[chosen] = 0
        return self._observations(), {}

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], Float, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Step all environments, with the order of operations of Gymnasium's single environment.

        Args:
            actions: 0 or 1, ``[N]``.

        Returns:
            Observations ``[N, 4]``, rewards ``[N]``, ``terminated`` ``[N]``, ``truncated`` ``[N]`` and an empty
            dictionary.
        """
        task = self._single
        x, x_dot, theta, theta_dot = self._state
        force = np.where(actions == 1, task.force_mag, -task.force_mag)
        cosine, sine = np.cos(theta), np.sin(theta)
        pull = (force + task.polemass_length * np.square(theta_dot) * sine) / task.total_mass
        theta_acceleration = (task.gravity * sine - cosine * pull) / (
            task.length * (4.0 / 3.0 - task.masspole * np.square(cosine) / task.total_mass)
        )
        acceleration = pull - task.polemass_length * theta_acceleration * cosine / task.total_mass
        self._state = np.stack(
            [
                x + task.tau * x_dot,
                x_dot + task.tau * acceleration,
                theta + task.tau * theta_dot,
                theta_dot + task.tau * theta_acceleration,
            ]
        )
        position, _, angle, _ = np.abs(self._state)
        terminated = (position > task.x_threshold) | (angle > task.theta_threshold_radians)
        self._steps += 1
        rewards = np.where(terminated, self._rewards[1], self._rewards[0])
        return self._observations(), rewards, terminated, self._steps >= self._max_episode_steps, {}

    def _observations(self) -> NDArray[np.float32]:
        return self._state.T.astype(np.float32)
