"""``environment.wrappers:`` -> Gymnasium wrappers."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit, TransformReward
from numpy.typing import NDArray

from tesserl_configs import ConfigError

Environment = gym.Env[Any, Any]


def wrap(environment: Environment, config: Any) -> Environment:
    """Wraps one environment as one entry of ``environment.wrappers`` says."""
    match config.kind:
        case "time_limit":
            return TimeLimit(environment, config.max_episode_steps)
        case "frame_skip":
            return FrameSkip(environment, config.num_frames)
        case "frame_stack":
            return FrameStack(environment, config.num_frames)
        case "reward_scale":
            scale = config.scale
            return TransformReward(environment, lambda reward: float(reward) * scale)
        case "reward_clip":
            low, high = config.low, config.high
            return TransformReward(environment, lambda reward: min(max(float(reward), low), high))
    raise ConfigError(f"environment.wrappers: no wrapper of kind {config.kind}")


class FrameSkip(gym.Wrapper[Any, Any, Any, Any]):
    """Repeats each action; the rewards are summed, the last observation stays (Mnih et al. 2015 without the maximum).

    Args:
        environment: the environment.
        num_frames: frames per action.
    """

    def __init__(self, environment: Environment, num_frames: int) -> None:
        super().__init__(environment)
        self._num_frames = num_frames

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Repeats the action until the episode ends or the frames are used up."""
        total = 0.0
        for _ in range(self._num_frames):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, info


class FrameStack(gym.ObservationWrapper[Any, Any, Any]):
    """Stacks the last images along their channel axis, oldest first; an episode begins with its first image repeated.

    Args:
        environment: its observations are one image: ``[H, W]``, ``[H, W, C]`` or ``[C, H, W]``; channels stand
            where the shorter of the two outer axes is (the last one where they are equal).
        num_frames: images per stack.
    """

    def __init__(self, environment: Environment, num_frames: int) -> None:
        super().__init__(environment)
        space = environment.observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) not in (2, 3):
            raise ConfigError(
                f"environment.wrappers: frame_stack needs one image as observation, got {space}; "
                "remove it or wrap the environment so that it returns an image"
            )
        self._axis = 0 if len(space.shape) == 3 and space.shape[0] < space.shape[-1] else -1
        self._grey = len(space.shape) == 2
        self._num_frames = num_frames
        self._frames: list[NDArray[Any]] = []
        low, high = (self._stack([bound] * num_frames) for bound in (space.low, space.high))
        self.observation_space = spaces.Box(low, high, dtype=space.dtype.type)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets and forgets the old episode's images."""
        self._frames = []
        return super().reset(seed=seed, options=options)

    def observation(self, observation: NDArray[Any]) -> NDArray[Any]:
        """The stack that ends with this image."""
        self._frames = [*(self._frames or [observation] * (self._num_frames - 1)), observation][-self._num_frames :]
        return self._stack(self._frames)

    def _stack(self, frames: list[NDArray[Any]]) -> NDArray[Any]:
        return np.stack(frames, axis=-1) if self._grey else np.concatenate(frames, axis=self._axis)
