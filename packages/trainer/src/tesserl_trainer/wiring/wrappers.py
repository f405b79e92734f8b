"""``environment.wrappers:`` -> Gymnasium wrappers."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit, TransformReward

from tesserl_configs import ConfigError
from tesserl_trainer.wiring.images import AreaMean, FrameStack, Images, ImageWrapper, crop, grayscale
from tesserl_trainer.wiring.telemetry import Telemetry

Environment = gym.Env[Any, Any]

CLOCK_KEY = "0_clock"
"""Sorts before names that begin with a letter."""

TRANSPARENT = (TimeLimit, OrderEnforcing, PassiveEnvChecker, TransformReward)
"""Wrappers through which an observation passes as it is."""


def wrap(environment: Environment, config: Any, channels: str = "auto") -> Environment:
    """Wrap an environment as an entry of ``environment.wrappers`` says.

    Args:
        environment: the environment.
        config: the entry.
        channels: which axis of its images holds the channels: ``"first"``, ``"last"`` or ``"auto"``.

    Raises:
        ConfigError: the environment is not one that the wrapper can wrap.
    """
    match config.kind:
        case "time_limit":
            return TimeLimit(environment, config.max_episode_steps)
        case "frame_skip":
            return FrameSkip(environment, config.num_frames, max_last_two=config.max_last_two, channels=channels)
        case "telemetry":
            return Telemetry(environment)
        case "clock":
            return Clock(environment)
        case "reward_scale":
            scale = config.scale
            return TransformReward(environment, lambda reward: float(reward) * scale)
        case "reward_clip":
            low, high = config.low, config.high
            return TransformReward(environment, lambda reward: min(max(float(reward), low), high))
    return _wrap_images(environment, config, Images(environment.observation_space, channels, config.kind))


def _wrap_images(environment: Environment, config: Any, images: Images) -> Environment:
    axis, shape = images.axis, images.space.shape
    lines = shape[1:] if axis == 0 else shape[:2]
    match config.kind:
        case "frame_stack":
            return FrameStack(environment, images, config.num_frames)
        case "grayscale":
            if axis is None or shape[axis] != 3:
                raise ConfigError(
                    f"environment.wrappers: grayscale needs an image of three colours, got {images.space}; "
                    "put it before frame_stack, or set environment.channels where the axes are mistaken"
                )
            return ImageWrapper(environment, images, lambda image: grayscale(image, axis))
        case "crop":
            rows = slice(config.top, lines[0] - config.bottom)
            columns = slice(config.left, lines[1] - config.right)
            if rows.start >= rows.stop or columns.start >= columns.stop:
                raise ConfigError(
                    f"environment.wrappers: crop leaves nothing of {lines[0]} x {lines[1]} pixels; cut off less"
                )
            return ImageWrapper(environment, images, lambda image: crop(image, rows, columns, axis))
        case "resize":
            return ImageWrapper(environment, images, AreaMean(shape, config.height, config.width, axis))
    raise ConfigError(f"environment.wrappers: no wrapper of kind {config.kind}")


class Clock(gym.ObservationWrapper[Any, Any, Any]):
    """Adds a number, the first feature of ``observation``, that is 0 here and set where transitions are learned from.

    Args:
        environment: the environment; the keys of a Dict observation stand behind ``0_clock`` in sorted order.

    Raises:
        ConfigError: they do not.
    """

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        space = environment.observation_space
        parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {"observation": space}
        if min(parts) <= CLOCK_KEY:
            raise ConfigError(
                f"environment.wrappers: clock is the first feature, before the key {min(parts)!r}; rename that key"
            )
        self.observation_space = spaces.Dict({CLOCK_KEY: spaces.Box(0.0, 1.0, (1,), np.float32), **parts})
        self._is_dict = isinstance(space, spaces.Dict)

    def observation(self, observation: Any) -> dict[str, Any]:
        """Return the observation and clock 0."""
        parts = observation if self._is_dict else {"observation": observation}
        return {CLOCK_KEY: np.zeros(1, np.float32), **parts}


class FrameSkip(gym.Wrapper[Any, Any, Any, Any]):
    """Repeats each action; the rewards are summed, the last observation stays.

    Frames that nobody sees are not drawn where the environment draws on demand (``car_racing.CarRacing``): what comes
    out is the same.

    Args:
        environment: the environment.
        num_frames: frames per action.
        max_last_two: pixels are the larger ones of the action's last two frames (Mnih et al. 2015), where there are
            two.
        channels: which axis of the image holds the channels; read for ``max_last_two`` alone.

    Raises:
        ConfigError: ``max_last_two`` without an image.
    """

    def __init__(
        self, environment: Environment, num_frames: int, *, max_last_two: bool = False, channels: str = "auto"
    ) -> None:
        super().__init__(environment)
        self._num_frames = num_frames
        self._images = Images(environment.observation_space, channels, "frame_skip") if max_last_two else None
        self._painter = None if max_last_two else _painter(environment)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Repeats the action until the episode ends or the frames are used up."""
        if self._painter is not None:
            return self._step_undrawn(action, self._painter)
        before, observation, total = None, None, 0.0
        for _ in range(self._num_frames):
            before = observation
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        if self._images is not None and before is not None:
            larger = np.maximum(self._images.of(before), self._images.of(observation))
            observation = self._images.replaced(observation, larger)
        return observation, total, terminated, truncated, info

    def _step_undrawn(self, action: Any, painter: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        total = 0.0
        for left in range(self._num_frames - 1, -1, -1):
            painter.drawing = left == 0
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        if not painter.drawing:  # the episode ended on a frame that was to be skipped
            painter.drawing = True
            observation = painter.draw()
        return observation, total, terminated, truncated, info


def _painter(environment: Environment) -> Any:
    """Return the bare environment if it draws on demand and its observations arrive unchanged; else ``None``."""
    while isinstance(environment, TRANSPARENT):
        environment = environment.env
    return environment if hasattr(environment, "drawing") else None
