"""Convert observations of a Gymnasium space to the keys of the TensorDict contract.

The image becomes ``pixels``: channels first, uint8 or float32, with booleans as 0 and 255. All other entries are
concatenated in sorted key order to ``observation`` (float32, so integers beyond 2**24 are rounded). The entry
``action_mask`` of a Dict becomes the key ``action_mask`` (bool).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy import ndarray
from numpy.typing import NDArray

from tesserl_environments.arrays import fit
from tesserl_environments.masks import ACTION_MASK, ActionMask

Arrays = Mapping[str, NDArray[Any]]
Reader = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class _Part:
    """One entry of an observation space: its place in the output, and the function that reads a batch of it."""

    name: str  # empty if the space is not a Dict
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int  # range of features in `observation`; unused for images
    stop: int
    read: Reader

    def of(self, batch: Any, check: bool) -> NDArray[Any]:
        """Return the values to write for a batch; reject shapes and dtypes that are not those of the space."""
        values = batch[self.name] if self.name else batch
        if not check:
            return self.read(values)
        if type(values) is not ndarray or values.dtype is not self.dtype or values.shape[1:] != self.shape:
            values = np.asarray(values)
            try:
                values = fit(values, (len(values) if values.ndim else 1, *self.shape), self.dtype)
            except ValueError as error:
                raise ValueError(f"{_where(self.name)}: {error}; correct the space or the task") from error
        return self.read(values)


class ObservationLayout:
    """Map an observation space to keys and shapes, and write batches of observations to arrays of these keys.

    Args:
        space: observation space of one environment: a Box, Discrete, MultiBinary or MultiDiscrete space, or a Dict
            of those. At most one entry is an image (three axes, or two axes of uint8).
        channels: channel axis of an image: ``"first"``, ``"last"``, or ``"auto"``, the shorter of the two (the last if
            they are equal).
        action_space: action space of one environment. The entry ``action_mask`` of a Dict is then read as an action
            mask of shape ``[A]``, ``[N, A]`` for choices of equal size, or ``[sum(nvec)]``. None treats it like any
            other vector.

    Raises:
        ValueError: the space has an entry that cannot be converted, an image of integers outside of 0..255, or a mask
            that does not fit the actions.
    """

    def __init__(
        self, space: spaces.Space[Any], *, channels: str = "auto", action_space: spaces.Space[Any] | None = None
    ) -> None:
        parts = _parts(space)
        self.mask: ActionMask | None = None
        self._masks: _Part | None = None
        if isinstance(space, spaces.Dict) and ACTION_MASK in space.spaces and action_space is not None:
            parts = [(name, part) for name, part in parts if name != ACTION_MASK]
            entry = space.spaces[ACTION_MASK]
            self.mask = ActionMask(entry, action_space)
            self._masks = _Part(ACTION_MASK, entry.shape or (), np.dtype(entry.dtype), 0, 0, self.mask.read)
        images = [name for name, part in parts if is_image(part)]
        if len(images) > 1:
            raise ValueError(
                f"an observation may hold one image, got {len(images)} ({', '.join(images)}); "
                "stack them along the channel axis in a wrapper"
            )
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, np.dtype[Any]] = {}
        self._image: _Part | None = None
        self._vectors: list[_Part] = []
        width = 0
        for name, part in parts:
            if is_image(part):
                shape, read = _image_reader(part, channels, name)
                self._image = _Part(name, part.shape or (), np.dtype(part.dtype), 0, 0, read)
                self.shapes["pixels"] = shape
                self.dtypes["pixels"] = np.dtype(np.float32 if np.issubdtype(part.dtype, np.floating) else np.uint8)
            else:
                size, read = _vector_reader(part, name)
                self._vectors.append(_Part(name, part.shape or (), np.dtype(part.dtype), width, width + size, read))
                width += size
        # fast path for a single vector; without it, copying takes a third of the time of a vector step
        self._alone = self._vectors[0] if len(parts) == 1 and self._vectors else None
        if width:
            self.shapes["observation"] = (width,)
            self.dtypes["observation"] = np.dtype(np.float32)
        if self.mask is not None:
            self.shapes[ACTION_MASK] = self.mask.shape
            self.dtypes[ACTION_MASK] = np.dtype(np.bool_)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the layout, in the order of network inputs: pixels, observation, action_mask."""
        return tuple(self.shapes)

    @property
    def space(self) -> spaces.Dict:
        """The space of the written arrays: images as uint8 in 0..255 or as floats, the vector without bounds."""
        bounds = {np.dtype(np.uint8): (0, 255), np.dtype(np.float32): (-np.inf, np.inf)}
        parts = {key: (shape, self.dtypes[key]) for key, shape in self.shapes.items()}
        return spaces.Dict(
            {key: spaces.Box(*bounds[dtype], shape, dtype.type) for key, (shape, dtype) in parts.items()}
        )

    def empty(self, *leading: int) -> dict[str, NDArray[Any]]:
        """Return zeroed arrays ``[*leading, *shape]``, one per key."""
        return {key: np.zeros((*leading, *shape), self.dtypes[key]) for key, shape in self.shapes.items()}

    def write(self, batch: Any, out: Arrays, index: Any = ..., *, check: bool = True) -> None:
        """Write a batch of observations into ``out[key][index]``.

        Args:
            batch: observations of a vector environment: an array ``[N, *shape]``, or a mapping of such arrays.
            out: one array ``[..., *shape]`` per key.
            index: index of ``out`` to which the batch is written.
            check: whether to check shapes and dtypes.

        Raises:
            ValueError: an array differs from its space in shape or dtype, or has values outside of its space that the
                conversion would change.
        """
        if self._image is not None:
            out["pixels"][index] = self._image.of(batch, check)
        if self._masks is not None:
            out[ACTION_MASK][index] = self._masks.of(batch, check)
        if self._alone is not None:
            out["observation"][index] = self._alone.of(batch, check)
            return
        for part in self._vectors:
            out["observation"][index][..., part.start : part.stop] = part.of(batch, check)


def _parts(space: spaces.Space[Any]) -> list[tuple[str, spaces.Space[Any]]]:
    """Return the entries of a Dict space in sorted key order; any other space is one entry with an empty name."""
    if isinstance(space, spaces.Dict):
        return sorted(space.spaces.items())
    return [("", space)]


def is_image(space: spaces.Space[Any]) -> bool:
    """Return whether a space holds one image: a Box of three axes, or a uint8 Box of two axes."""
    if not isinstance(space, spaces.Box):
        return False
    return len(space.shape) == 3 or (len(space.shape) == 2 and space.dtype == np.uint8)


def channel_axis(shape: tuple[int, ...], channels: str = "auto") -> int | None:
    """Return the channel axis: 0, -1, or None for two axes. ``"auto"`` is the shorter one, or the last if equal."""
    if len(shape) == 2:
        return None
    return 0 if channels == "first" or (channels == "auto" and shape[0] < shape[-1]) else -1


def _image_reader(space: spaces.Space[Any], channels: str, name: str) -> tuple[tuple[int, ...], Reader]:
    """Return the shape ``(C, H, W)`` and a function from ``[N, *space.shape]`` to ``[N, C, H, W]``."""
    shape = space.shape or ()
    pixels = _pixels(space, name)
    axis = channel_axis(shape, channels)
    if axis is None:
        return (1, *shape), lambda batch: pixels(batch[:, None])
    if axis == 0:
        return shape, pixels
    return (shape[-1], *shape[:2]), lambda batch: pixels(np.moveaxis(batch, -1, 1))


def _pixels(space: Any, name: str) -> Reader:
    """Return the function that converts images to ``pixels`` without changing values."""
    dtype, scale = np.dtype(space.dtype), np.uint8(255)
    if dtype == np.uint8 or dtype.kind == "f":
        return lambda batch: batch
    if dtype == np.bool_:
        return lambda batch: batch * scale
    low, high = space.low.min(), space.high.max()
    if low < 0 or high > 255:
        raise ValueError(
            f"{_where(name)}: an image of integers must have bounds in 0..255, got {dtype} from {low} to {high}; "
            "return float32, or planes of uint8, in a wrapper"
        )

    def cast(batch: NDArray[Any]) -> NDArray[Any]:
        if batch.size and (batch.min() < 0 or batch.max() > 255):
            got = f"{batch.min()} to {batch.max()}"
            raise ValueError(f"{_where(name)}: expected integers in 0..255, got {got}; correct the space or the task")
        return batch.astype(np.uint8)

    return cast


def _vector_reader(space: spaces.Space[Any], name: str) -> tuple[int, Reader]:
    """Return the width and a function from ``[N, *space.shape]`` to ``[N, width]``."""
    if isinstance(space, spaces.Discrete):
        one_hot = _one_hot(int(space.n), int(space.start), name)
        return int(space.n), one_hot
    if isinstance(space, spaces.MultiDiscrete) and len(space.shape) == 1:
        tables = [_one_hot(int(n), int(start), name) for n, start in zip(space.nvec, space.start, strict=True)]
        return int(space.nvec.sum()), lambda batch: np.concatenate(
            [table(batch[:, i]) for i, table in enumerate(tables)], axis=1
        )
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        size = int(np.prod(space.shape, dtype=np.int64))
        if len(space.shape) == 1:
            return size, lambda batch: batch
        return size, lambda batch: batch.reshape(len(batch), size)
    raise ValueError(
        f"{_where(name)}: expected a Box, Discrete, MultiDiscrete or MultiBinary space (or one Dict of those), got "
        f"{space}; convert it in a wrapper (gymnasium.wrappers.FlattenObservation, for one)"
    )


def _one_hot(size: int, start: int, name: str) -> Reader:
    """Return the function from choices ``[N]`` to one-hot rows ``[N, size]``."""
    identity = np.eye(size, dtype=np.float32)

    def read(batch: NDArray[Any]) -> NDArray[Any]:
        index = batch - start
        if index.size and (index.min() < 0 or index.max() >= size):  # a negative index would count from the end
            expected, got = f"choices from {start} to {start + size - 1}", batch.tolist()
            raise ValueError(f"{_where(name)}: expected {expected}, got {got}; correct the space or the task")
        return identity[index]

    return read


def _where(name: str) -> str:
    return f"entry {name!r} of the observation space" if name else "the observation space"
