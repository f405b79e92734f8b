"""Wrappers that change the image of an observation, and leave its other entries unchanged."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from tesserl_environments.errors import EnvironmentArgumentError
from tesserl_environments.observations import channel_axis, is_image

Environment = gym.Env[Any, Any]
Image = NDArray[Any]

LUMINANCE = (19595, 38470, 7471)
"""Weights of red, green and blue in 1/65536: 0.299, 0.587 and 0.114 (ITU-R BT.601)."""


class Images:
    """Locate the image in the observations of an environment.

    Args:
        space: one image, or a Dict with one image among its entries.
        channels: channel axis of the image: ``"first"``, ``"last"`` or ``"auto"``.
        wrapper: name of the wrapper, for error messages.

    Raises:
        EnvironmentArgumentError: there is no image, or more than one.
    """

    def __init__(self, space: spaces.Space[Any], channels: str, wrapper: str) -> None:
        parts: dict[str, Any] = space.spaces if isinstance(space, spaces.Dict) else {"": space}
        found = [(key, part) for key, part in parts.items() if is_image(part)]
        if len(found) != 1:
            raise EnvironmentArgumentError(
                f"wrappers: {wrapper} needs one image as observation, got {space}; "
                "remove it or wrap the environment so that it returns an image"
            )
        self._whole = space
        self._key, self.space = found[0]
        self.axis = channel_axis(self.space.shape, channels)

    def of(self, observation: Any) -> Image:
        """Return the image of an observation."""
        return observation[self._key] if self._key else observation

    def replaced(self, observation: Any, image: Image) -> Any:
        """Return the observation with its image replaced."""
        return {**observation, self._key: image} if self._key else image

    def space_of(self, change: Callable[[Image], Image]) -> spaces.Space[Any]:
        """Return the observation space after a change of the image; the dtype must stay the same."""
        old = self.space
        shape = change(np.zeros(old.shape, old.dtype)).shape
        low, high = np.full(shape, old.low.min()), np.full(shape, old.high.max())
        image = spaces.Box(low, high, dtype=old.dtype.type)
        if not isinstance(self._whole, spaces.Dict):
            return image
        return spaces.Dict({**self._whole.spaces, self._key: image})


class ImageWrapper(gym.ObservationWrapper[Any, Any, Any]):
    """Transform the image of every observation; the dtype stays the same."""

    def __init__(self, environment: Environment, images: Images, change: Callable[[Image], Image]) -> None:
        super().__init__(environment)
        self._images, self._change = images, change
        self.observation_space = images.space_of(change)

    def observation(self, observation: Any) -> Any:
        """Return the observation with its image changed."""
        return self._images.replaced(observation, self._change(self._images.of(observation)))


class FrameStack(gym.ObservationWrapper[Any, Any, Any]):
    """Stack the last images along the channel axis, oldest first; repeat the first image of an episode.

    Args:
        environment: the environment.
        images: locates its image.
        num_frames: images per stack.
    """

    def __init__(self, environment: Environment, images: Images, num_frames: int) -> None:
        super().__init__(environment)
        self._images, self._num_frames = images, num_frames
        self._frames: list[Image] = []
        self.observation_space = images.space_of(lambda image: self._stack([image] * num_frames))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment and clear the images of the last episode."""
        self._frames = []
        return super().reset(seed=seed, options=options)

    def observation(self, observation: Any) -> Any:
        """Return the observation with its image replaced by the stack."""
        image = self._images.of(observation)
        self._frames = [*(self._frames or [image] * (self._num_frames - 1)), image][-self._num_frames :]
        return self._images.replaced(observation, self._stack(self._frames))

    def _stack(self, frames: list[Image]) -> Image:
        axis = self._images.axis
        return np.stack(frames, axis=-1) if axis is None else np.concatenate(frames, axis=axis)


def crop(image: Image, rows: slice, columns: slice, axis: int | None) -> Image:
    """Return the given rows and columns of an image.

    Args:
        image: ``[C, H, W]``, ``[H, W, C]`` or ``[H, W]``.
        rows: rows to keep.
        columns: columns to keep.
        axis: channel axis: 0, -1 or ``None``.
    """
    return image[:, rows, columns] if axis == 0 else image[rows, columns]


def grayscale(image: Image, axis: int) -> Image:
    """Return the luminance of a colour image as one channel.

    Args:
        image: ``[3, H, W]`` or ``[H, W, 3]``; red, green, blue. Integers are rounded.
        axis: channel axis: 0 or -1.

    Returns:
        ``[1, H, W]`` or ``[H, W, 1]``, in the image's dtype.
    """
    planes = np.moveaxis(image, axis, 0)
    if np.issubdtype(image.dtype, np.floating):
        grey = sum(plane * image.dtype.type(weight / 65536) for plane, weight in zip(planes, LUMINANCE, strict=True))
    else:
        products = [
            np.multiply(p, w, dtype=np.uint32, casting="unsafe") for p, w in zip(planes, LUMINANCE, strict=True)
        ]
        grey = ((products[0] + products[1] + products[2] + 32768) >> 16).astype(image.dtype)
    return np.expand_dims(grey, axis)


def area_weights(size: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the pixels of a line that each scaled pixel covers, and their weights, both ``[target, taps]``."""
    edges = np.arange(target + 1) * (size / target)
    first = np.floor(edges[:-1]).astype(np.int64)
    index = first[:, None] + np.arange(int(np.ceil(size / target)) + 1)
    covered = np.minimum(index + 1, edges[1:, None]) - np.maximum(index, edges[:-1, None])
    weight = np.where(covered > 1e-9, covered, 0.0)  # smaller values are rounding errors
    taps = weight.any(0)
    return np.minimum(index, size - 1)[:, taps], (weight / weight.sum(1, keepdims=True)).astype(np.float32)[:, taps]


class AreaMean:
    """Scale an image: each new pixel is the mean of the area that it covers. Integers are rounded.

    Args:
        shape: shape of the image.
        height: height of the scaled image in pixels.
        width: width of the scaled image in pixels.
        axis: channel axis: 0, -1 or ``None``.
    """

    def __init__(self, shape: tuple[int, ...], height: int, width: int, axis: int | None) -> None:
        rows = 1 if axis == 0 else 0
        self._lines = []
        for line, target in ((rows, height), (rows + 1, width)):
            if shape[line] != target:
                index, weight = area_weights(shape[line], target)
                along = [-1 if other == line else 1 for other in range(len(shape))]
                taps = [(pixels, parts.reshape(along)) for pixels, parts in zip(index.T, weight.T, strict=True)]
                self._lines.append((line, taps))

    def __call__(self, image: Image) -> Image:
        """Return the scaled image, in the same dtype."""
        scaled: NDArray[Any] = image
        for line, taps in self._lines:
            scaled = sum(scaled.take(index, line) * weight for index, weight in taps)
        return (scaled if np.issubdtype(image.dtype, np.floating) else np.rint(scaled)).astype(image.dtype)
