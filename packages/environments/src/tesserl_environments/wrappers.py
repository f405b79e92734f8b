"""Gymnasium wrappers for observations, rewards and frames."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit, TransformReward

from tesserl_environments.errors import EnvironmentArgumentError
from tesserl_environments.images import AreaMean, FrameStack, Images, ImageWrapper, crop, grayscale

Environment = gym.Env[Any, Any]

CLOCK_KEY = "0_clock"
"""Name of the clock's entry; it sorts before names that begin with a letter."""

TRANSPARENT = (TimeLimit, OrderEnforcing, PassiveEnvChecker, TransformReward)
"""Wrappers that do not change observations."""


def scale_rewards(environment: Environment, scale: float) -> Environment:
    """Multiply rewards by a factor."""
    return TransformReward(environment, lambda reward: float(reward) * scale)


def clip_rewards(environment: Environment, low: float, high: float) -> Environment:
    """Clip rewards to ``[low, high]``."""
    return TransformReward(environment, lambda reward: min(max(float(reward), low), high))


def stack_frames(environment: Environment, num_frames: int, *, channels: str = "auto") -> Environment:
    """Stack the last images along their channel axis, oldest first.

    Args:
        environment: environment whose observation is an image, or has one image among its entries.
        num_frames: images per stack, >= 1.
        channels: channel axis, as for `resize`.

    Raises:
        EnvironmentArgumentError: the observation does not have exactly one image.
    """
    return FrameStack(environment, Images(environment.observation_space, channels, "frame_stack"), num_frames)


def to_grayscale(environment: Environment, *, channels: str = "auto") -> Environment:
    """Convert RGB images to grey images of one channel (luminance, ITU-R BT.601).

    Args:
        environment: environment whose observation is an image, or has one image among its entries.
        channels: channel axis, as for `resize`.

    Raises:
        EnvironmentArgumentError: the observation does not have exactly one image of three channels.
    """
    images = Images(environment.observation_space, channels, "grayscale")
    axis = images.axis
    if axis is None or images.space.shape[axis] != 3:
        raise EnvironmentArgumentError(
            f"wrappers: grayscale needs an image of three colours, got {images.space}; "
            "put it before frame_stack, or set channels where the axes are mistaken"
        )
    return ImageWrapper(environment, images, lambda image: grayscale(image, axis))


def crop_edges(
    environment: Environment, *, top: int = 0, bottom: int = 0, left: int = 0, right: int = 0, channels: str = "auto"
) -> Environment:
    """Crop the edges of images.

    Args:
        environment: environment whose observation is an image, or has one image among its entries.
        top: rows to remove at the top, in pixels.
        bottom: rows to remove at the bottom, in pixels.
        left: columns to remove on the left, in pixels.
        right: columns to remove on the right, in pixels.
        channels: channel axis, as for `resize`.

    Raises:
        EnvironmentArgumentError: the observation does not have exactly one image, or nothing of the image is left.
    """
    images = Images(environment.observation_space, channels, "crop")
    axis, shape = images.axis, images.space.shape
    height, width = shape[1:] if axis == 0 else shape[:2]
    rows, columns = slice(top, height - bottom), slice(left, width - right)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        raise EnvironmentArgumentError(f"wrappers: crop leaves nothing of {height} x {width} pixels; cut off less")
    return ImageWrapper(environment, images, lambda image: crop(image, rows, columns, axis))


def resize(environment: Environment, height: int, width: int, *, channels: str = "auto") -> Environment:
    """Scale images; each new pixel is the mean of the area that it covers.

    Args:
        environment: environment whose observation is an image, or has one image among its entries.
        height: height of the scaled image, in pixels.
        width: width of the scaled image, in pixels.
        channels: channel axis: ``"first"``, ``"last"``, or ``"auto"`` (the shorter of the two).

    Raises:
        EnvironmentArgumentError: the observation does not have exactly one image.
    """
    images = Images(environment.observation_space, channels, "resize")
    return ImageWrapper(environment, images, AreaMean(images.space.shape, height, width, images.axis))


class Clock(gym.ObservationWrapper[Any, Any, Any]):
    """Add a clock as the first feature of ``observation``: 0 here; the learner sets its value in transitions.

    Args:
        environment: the environment; in a Dict observation all keys must sort after ``0_clock``.

    Raises:
        EnvironmentArgumentError: a key sorts before it.
    """

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        space = environment.observation_space
        parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {"observation": space}
        if min(parts) <= CLOCK_KEY:
            raise EnvironmentArgumentError(
                f"wrappers: clock is the first feature, before the key {min(parts)!r}; rename that key"
            )
        self.observation_space = spaces.Dict({CLOCK_KEY: spaces.Box(0.0, 1.0, (1,), np.float32), **parts})
        self._is_dict = isinstance(space, spaces.Dict)

    def observation(self, observation: Any) -> dict[str, Any]:
        """Return the observation with a clock of 0."""
        parts = observation if self._is_dict else {"observation": observation}
        return {CLOCK_KEY: np.zeros(1, np.float32), **parts}


class FrameSkip(gym.Wrapper[Any, Any, Any, Any]):
    """Repeat each action; sum the rewards and return the last observation.

    If the environment draws on demand (``car_racing.CarRacing``), skipped frames are not drawn; the results are the
    same.

    Args:
        environment: the environment.
        num_frames: frames per action.
        max_last_two: take the pixel-wise maximum of the action's last two frames, if there are two (Mnih et al. 2015).
        channels: channel axis of the image; only used for ``max_last_two``.

    Raises:
        EnvironmentArgumentError: ``max_last_two`` is set and the observation has no image.
    """

    def __init__(
        self, environment: Environment, num_frames: int, *, max_last_two: bool = False, channels: str = "auto"
    ) -> None:
        super().__init__(environment)
        self._num_frames = num_frames
        self._images = Images(environment.observation_space, channels, "frame_skip") if max_last_two else None
        self._painter = None if max_last_two else _painter(environment)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Repeat the action ``num_frames`` times, or until the episode ends."""
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
        if not painter.drawing:  # the episode ended on a skipped frame
            painter.drawing = True
            observation = painter.draw()
        return observation, total, terminated, truncated, info


def _painter(environment: Environment) -> Any:
    """Return the bare environment if it draws on demand and no wrapper changes its observations; else None."""
    while isinstance(environment, TRANSPARENT):
        environment = environment.env
    return environment if hasattr(environment, "drawing") else None
