"""Films of episodes, as MP4 files."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tesserl_environments.making import Environments
from tesserl_trainer.running.drawing import drawn_frames
from tesserl_trainer.usage import ArgumentError

BLOCK = 2
"""Colours of H.264 are those of squares of so many pixels; frames are padded to a multiple."""


def require_encoder() -> None:
    """Check that the extra for films is installed.

    Raises:
        ArgumentError: it is not.
    """
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        raise ArgumentError('--video needs imageio_ffmpeg; install "tesserl-trainer[video]"')


def frames_per_second(environments: Environments) -> float:
    """Return the rate that a task declares for its frames, 30 if it declares none."""
    return float((environments.metadata or {}).get("render_fps") or 30)


@contextmanager
def filmed(environments: Environments, path: Path, *, remedy: str) -> Iterator[Callable[[], None]]:
    """Film what one environment shows.

    The file is written under another name and takes its own when the film is complete.

    Args:
        environments: a single one, with ``render_mode="rgb_array"``.
        path: of the MP4 file; its directory exists.
        remedy: the end of the error about a task that cannot be drawn.

    Yields:
        A function that adds the present frame.

    Raises:
        ConfigError: a package that draws is missing.
    """
    import imageio_ffmpeg

    partial, writer = path.with_name(f".{path.name}"), None

    def add() -> None:
        nonlocal writer
        frame = padded(drawn_frames(environments, remedy=remedy)[0])
        if writer is None:  # the first frame has the size; nothing can be drawn before the first reset
            writer = imageio_ffmpeg.write_frames(
                str(partial),
                (frame.shape[1], frame.shape[0]),
                fps=frames_per_second(environments),
                macro_block_size=BLOCK,
                output_params=["-f", "mp4"],
            )
            stack.enter_context(closing(writer)).send(None)
        writer.send(np.ascontiguousarray(frame))

    try:
        with ExitStack() as stack:
            yield add
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def padded(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pad a frame ``[H, W, 3]`` with black to whole blocks of colour."""
    height, width = (-length % BLOCK for length in frame.shape[:2])
    return np.pad(frame, ((0, height), (0, width), (0, 0)))
