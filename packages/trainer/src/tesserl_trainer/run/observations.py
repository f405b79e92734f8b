"""From a Gymnasium observation space to the keys of the TensorDict contract.

Images become ``pixels`` (channels first, uint8; boolean planes as 0 and 255), everything else is concatenated, in
sorted key order, into ``observation`` (float32).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
Reader = Callable[[NDArray[Any]], NDArray[Any]]


class ObservationLayout:
    """Which keys an observation space yields, with their shapes, and how a batch of observations is written there.

    Args:
        space: observation space of one environment: a Box, Discrete, MultiBinary or MultiDiscrete space, or a Dict
            of those. At most one entry is an image (three axes, or two axes of uint8).
        channels: which axis of an image holds the channels: ``"first"``, ``"last"``, or ``"auto"`` (the shorter one
            of the two; the last where they are equal).

    Raises:
        ValueError: the space holds a part that no network here can read.
    """

    def __init__(self, space: spaces.Space[Any], *, channels: str = "auto") -> None:
        parts = _parts(space)
        images = [name for name, part in parts if is_image(part)]
        if len(images) > 1:
            raise ValueError(
                f"an observation may hold one image, got {len(images)} ({', '.join(images)}); "
                "stack them along the channel axis in a wrapper"
            )
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, np.dtype[Any]] = {}
        self._image: tuple[str, Reader] | None = None
        self._vectors: list[tuple[str, int, int, Reader]] = []
        width = 0
        for name, part in parts:
            if is_image(part):
                shape, read = _image_reader(part, channels)
                self._image = (name, read)
                self.shapes["pixels"] = shape
                self.dtypes["pixels"] = np.dtype(np.float32 if np.issubdtype(part.dtype, np.floating) else np.uint8)
            else:
                size, read = _vector_reader(part, name)
                self._vectors.append((name, width, width + size, read))
                width += size
        # the common case, an array that is copied as it is, is a third of the cost of a vector step if it is not fast
        self._alone = self._vectors[0][3] if len(parts) == 1 and self._vectors else None
        if width:
            self.shapes["observation"] = (width,)
            self.dtypes["observation"] = np.dtype(np.float32)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that are written, in the order in which bodies take them: ``pixels``, then ``observation``."""
        return tuple(self.shapes)

    def empty(self, *leading: int) -> dict[str, NDArray[Any]]:
        """Zeroed arrays ``[*leading, *shape]``, one for every key."""
        return {key: np.zeros((*leading, *shape), self.dtypes[key]) for key, shape in self.shapes.items()}

    def write(self, batch: Any, out: Arrays, index: Any = ...) -> None:
        """Writes a batch of observations into ``out[key][index]``.

        Args:
            batch: what a vector environment returns: an array ``[N, *shape]``, or a mapping of such arrays.
            out: one array ``[..., *shape]`` for every key.
            index: which part of ``out`` receives the batch.
        """
        if self._image is not None:
            name, read = self._image
            out["pixels"][index] = read(batch[name] if name else batch)
        if self._alone is not None:
            out["observation"][index] = self._alone(batch)
            return
        for name, start, stop, read in self._vectors:
            out["observation"][index][..., start:stop] = read(batch[name] if name else batch)


def _parts(space: spaces.Space[Any]) -> list[tuple[str, spaces.Space[Any]]]:
    """The entries of a Dict space in sorted key order; any other space is its own single part, without a name."""
    if isinstance(space, spaces.Dict):
        return sorted(space.spaces.items())
    return [("", space)]


def is_image(space: spaces.Space[Any]) -> bool:
    """Whether a space is that of one image: a Box of three axes, or of two axes and uint8."""
    if not isinstance(space, spaces.Box):
        return False
    return len(space.shape) == 3 or (len(space.shape) == 2 and space.dtype == np.uint8)


def channel_axis(shape: tuple[int, ...], channels: str = "auto") -> int | None:
    """Which axis of an image holds the channels.

    Args:
        shape: of the image.
        channels: ``"first"``, ``"last"``, or ``"auto"``: the shorter one of the two, the last where they are equal.

    Returns:
        0 or -1; ``None`` where the image has two axes, that is, no channels.
    """
    if len(shape) == 2:
        return None
    return 0 if channels == "first" or (channels == "auto" and shape[0] < shape[-1]) else -1


def _image_reader(space: spaces.Space[Any], channels: str) -> tuple[tuple[int, ...], Reader]:
    """Shape ``(C, H, W)`` and a function from ``[N, *space.shape]`` to ``[N, C, H, W]``."""
    shape = space.shape or ()
    scale = np.uint8(255) if space.dtype == np.bool_ else None
    axis = channel_axis(shape, channels)
    if axis is None:
        return (1, *shape), lambda batch: batch[:, None]
    if axis == 0:
        return shape, lambda batch: _scaled(batch, scale)
    return (shape[-1], *shape[:2]), lambda batch: _scaled(np.moveaxis(batch, -1, 1), scale)


def _scaled(batch: NDArray[Any], scale: np.uint8 | None) -> NDArray[Any]:
    return batch if scale is None else batch * scale


def _vector_reader(space: spaces.Space[Any], name: str) -> tuple[int, Reader]:
    """Width and a function from ``[N, *space.shape]`` to ``[N, width]``."""
    if isinstance(space, spaces.Discrete):
        start, identity = space.start, np.eye(int(space.n), dtype=np.float32)
        return int(space.n), lambda batch: identity[batch - start]
    if isinstance(space, spaces.MultiDiscrete) and len(space.shape) == 1:
        sizes, starts = space.nvec, space.start
        tables = [np.eye(int(size), dtype=np.float32) for size in sizes]
        return int(sizes.sum()), lambda batch: np.concatenate(
            [table[batch[:, i] - starts[i]] for i, table in enumerate(tables)], axis=1
        )
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        size = int(np.prod(space.shape, dtype=np.int64))
        if len(space.shape) == 1:
            return size, lambda batch: batch
        return size, lambda batch: batch.reshape(len(batch), size)
    where = f"entry {name!r} of the observation space" if name else "the observation space"
    raise ValueError(
        f"{where}: expected a Box, Discrete, MultiDiscrete or MultiBinary space (or one Dict of those), got {space}; "
        "convert it in a wrapper (gymnasium.wrappers.FlattenObservation, for one)"
    )
