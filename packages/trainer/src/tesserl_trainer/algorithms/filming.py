"""Films of episodes, as MP4 files."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tesserl_configs import RunConfig
from tesserl_environments import closed_afterwards
from tesserl_environments.making import Environments
from tesserl_trainer.algorithms.agent import Acting
from tesserl_trainer.algorithms.drawing import drawing, drawn_frames
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.usage import ArgumentError

BLOCK = 2
"""Pixels per side of a colour block of H.264; frames are padded to a multiple."""


def require_encoder() -> None:
    """Check that the extra for films is installed."""
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        raise ArgumentError('--video needs imageio_ffmpeg; install "tesserl-trainer[video]"')


class Camera:
    """Films episodes in a separate environment, which ``stack`` closes."""

    def __init__(self, config: RunConfig, place: Path, stack: ExitStack, *, remedy: str) -> None:
        self.task = Task(drawing(config, remedy=remedy))
        self._place, self._remedy = place, remedy
        self._environments = stack.enter_context(closed_afterwards(self.task.environments(1, evaluation=True)))

    def try_out(self, seed: int) -> None:
        """Draw one frame, so that a missing package raises an error before training starts."""
        self._environments.reset(seed=seed)
        drawn_frames(self._environments, remedy=self._remedy)

    def film(self, policy: Acting, checkpoint: str, seed: int) -> Path:
        """Film an episode, replacing its earlier film; return the file, named by checkpoint, seed and return."""
        self._place.mkdir(parents=True, exist_ok=True)
        unnamed = self._place / f"{checkpoint}-seed-{seed}.mp4"
        with filmed(self._environments, unnamed, remedy=self._remedy) as add:
            result = self.task.play(policy, self._environments, [seed], on_step=add)
        for earlier in self._place.glob(f"{unnamed.stem}-return-*.mp4"):
            earlier.unlink()
        return unnamed.replace(unnamed.with_stem(f"{unnamed.stem}-return-{result.returns[0]:.4g}"))


def frames_per_second(environments: Environments) -> float:
    """Return the frames per second that a task declares, 30 if it declares none."""
    return float((environments.metadata or {}).get("render_fps") or 30)


@contextmanager
def filmed(environments: Environments, path: Path, *, remedy: str) -> Iterator[Callable[[], None]]:
    """Film a single environment to a file, written atomically; yield the function that adds the current frame."""
    import imageio_ffmpeg

    partial, writer = path.with_name(f".{path.name}"), None

    def add() -> None:
        nonlocal writer
        frame = padded(drawn_frames(environments, remedy=remedy)[0])
        if writer is None:  # the first frame gives the size; environments render only after a reset
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
