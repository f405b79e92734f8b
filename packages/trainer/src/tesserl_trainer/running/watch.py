"""``tesserl watch``: show a run's policy playing, in a window or in the terminal."""

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tesserl_collectors.process import prepare_process
from tesserl_configs import RunConfig
from tesserl_environments import closed_afterwards
from tesserl_environments.making import Environments, has_display
from tesserl_trainer.algorithms.drawing import drawing, drawn_frames, naming_missing_package, render_modes
from tesserl_trainer.algorithms.filming import frames_per_second
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.running.evaluate import first_seed
from tesserl_trainer.running.playing import acting
from tesserl_trainer.running.run_directory import run_config
from tesserl_trainer.usage import ArgumentError, command_line
from tesserl_training.checkpoints.run_checkpoints import Checkpoints

CLEAR = "\x1b[2J\x1b[H"
"""Escape sequence that clears a terminal."""

EXTRA = 'install "tesserl-trainer[video]", which brings pygame'


def watch(
    run_dir: str | Path,
    *,
    show: Callable[[str], None],
    episodes: int = 3,
    seed: int | None = None,
    checkpoint: str = "best",
    stochastic: bool = False,
    terminal: bool = False,
    overrides: Sequence[str] = (),
) -> None:
    """Play episodes in real time with the policy of a run.

    Args:
        run_dir: directory of the run.
        show: called with each line or text frame to print.
        episodes: number of episodes, at least 1.
        seed: the episodes use seeds ``seed, seed + 1, ...``; None takes seeds that training never used.
        checkpoint: ``"best"``, ``"latest"``, or the name of a directory in ``checkpoints/``.
        stochastic: explore as in training at the checkpoint's step; False acts greedily.
        terminal: show the task in the terminal, as text if it renders text; False opens a window.
        overrides: ``key=value`` on top of the run's configuration.

    Raises:
        ArgumentError: there is no display for a window.
        StorageError: the run or the checkpoint does not exist or is damaged.
        ConfigError: the task opens no window, or a rendering package is missing.
    """
    run_dir = Path(run_dir)
    config = _rendering(run_config(run_dir, overrides), run_dir, terminal=terminal)
    weights = Checkpoints(run_dir).load_weights(checkpoint)
    prepare_process(config.num_threads, config.float32_matmul)
    task, first = Task(config), first_seed(config, seed)
    made = task.environments(1, evaluation=True)
    with closed_afterwards(made) as environments, acting(task, weights, stochastic=stochastic) as policy:
        has_text = config.environment.kwargs.get("render_mode") == "ansi"
        draw = partial(_draw_text, environments, show) if has_text else None
        for each in range(first, first + episodes):
            with naming_missing_package(environments, remedy=EXTRA):
                result = task.play(policy, environments, [each], on_step=draw)
            if draw is not None:
                draw()
            show(f"seed {each}: return {result.returns[0]:.1f}, {result.lengths[0]:,} steps ({weights.path.name})")


def _rendering(config: RunConfig, run_dir: Path, *, terminal: bool) -> RunConfig:
    """Return the configuration with the task rendering to a window or as text."""
    others = (
        f"watch in the terminal with {command_line('tesserl', 'watch', run_dir, '--terminal')}, or film it with "
        f"{command_line('tesserl', 'eval', run_dir, '--video')}"
    )
    if not terminal:
        shown = drawing(config, mode="human", remedy=others)
        if not has_display():
            raise ArgumentError(f"there is no display for a window (DISPLAY and WAYLAND_DISPLAY are not set); {others}")
        return shown
    in_batches = config.environment.vectorization in ("atari", "envpool")
    has_text = not in_batches and "ansi" in (render_modes(config) or ())
    return drawing(config, mode="ansi", remedy=others) if has_text else config


def _draw_text(environments: Environments, show: Callable[[str], None]) -> None:
    """Show a text frame; on a terminal, clear it first and pause at the task's frame rate."""
    frame = str(drawn_frames(environments, remedy=EXTRA)[0])
    if not sys.stdout.isatty():
        show(frame)
        return
    show(CLEAR + frame)
    time.sleep(1 / frames_per_second(environments))
