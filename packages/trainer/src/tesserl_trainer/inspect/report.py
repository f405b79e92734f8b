"""``tesserl report``: write one HTML file about a run. Imports no torch."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tesserl_analysis import draw_metrics, interval, mean, read_metrics, run_files, series
from tesserl_analysis.record import Row
from tesserl_configs import RunConfig
from tesserl_storage.errors import StorageError
from tesserl_storage.sealed_json import read_sealed
from tesserl_storage.whole_files import write_text
from tesserl_trainer.inspect.report_page import Report, render
from tesserl_trainer.running.run_directory import run_config
from tesserl_trainer.usage import command_line
from tesserl_training.checkpoints.names import checkpoint_paths
from tesserl_training.metric_names import EVALUATION

LARGEST_FILM = 32 * 2**20
"""Largest film in bytes that the page includes; it names a larger one."""


def report(run_dir: Path) -> Path:
    """Write ``report.html`` into the directory of a run.

    Args:
        run_dir: directory of the run, finished or not.

    Returns:
        The file; it is self-contained.

    Raises:
        StorageError: the run does not exist, or a file is damaged.
        OSError: the file cannot be written; an earlier report stays.
    """
    config = run_config(run_dir)
    rows = _read_rows(run_dir)
    result = read_sealed(file) if (file := run_dir / run_files.EVALUATION).is_file() else {}
    manifest = _newest_manifest(run_dir)
    title = f"{config.name} on {config.environment.id}"
    film, notes = _film(run_dir, str(result.get("checkpoint", "")))
    headline, results = _results(result) if result else _results_so_far(rows)
    page = Report(
        title=title,
        status=f"{config.algorithm}, seed {config.seed}, {_progress(config, manifest)}",
        headline=headline,
        results=results,
        notes=notes,
        curves=(draw_metrics(rows, title=title), draw_metrics(rows, title=title, dark=True)) if rows else None,
        film=film,
        commands=_commands(run_dir, config, finished=bool(result)),
        config=(run_dir / run_files.CONFIG).read_text(encoding="utf-8"),
        versions={name: str(value) for name, value in manifest.get("versions", {}).items()},
    )
    path = run_dir / run_files.REPORT
    write_text(path, render(page))
    return path


def _read_rows(run_dir: Path) -> list[Row]:
    """Return the rows of ``metrics.csv``; none if the run has not written it yet."""
    path = run_dir / run_files.METRICS
    try:
        return read_metrics(path) if path.is_file() else []
    except ValueError as error:
        raise StorageError(f"{path}: a bad line ({error}); put the file back, or remove it") from error


def _newest_manifest(run_dir: Path) -> dict[str, Any]:
    paths = checkpoint_paths(run_dir / run_files.CHECKPOINTS)
    return read_sealed(paths[-1] / run_files.MANIFEST) if paths else {}


def _progress(config: RunConfig, manifest: Mapping[str, Any]) -> str:
    return f"{manifest.get('step', 0):,} of {config.total_steps:,} steps in the newest checkpoint"


def _results(result: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the final evaluation in one line, and in rows."""
    returns = [value for value in result["returns"] if value is not None]  # null: not finite
    spread = ""
    if len(returns) == len(result["returns"]) > 1:
        _, low, high = interval([returns], mean)
        spread = f", 95 % interval {low:.1f} to {high:.1f}"
    rows = {
        "episodes": f"{result['episodes']}, on seeds from {result['seed']:,} that training never used",
        "checkpoint": str(result["checkpoint"]),
        "standard deviation": _number(result["return_std"]),
        "least and greatest return": f"{min(returns):.1f} and {max(returns):.1f}" if returns else "not finite",
        "mean length of an episode": f"{sum(result['lengths']) / len(result['lengths']):,.1f} steps",
        "mean return of the last weights": _number(result["last_return_mean"]),
    }
    return f"Return {_number(result['return_mean'])}{spread}", rows


def _results_so_far(rows: list[Row]) -> tuple[str, dict[str, str]]:
    """Return the periodic evaluations of a run that is not finished."""
    steps, returns = series(rows, EVALUATION)
    finite = [value for value in returns if math.isfinite(value)]
    if not finite:
        return "Not finished, not evaluated yet", {}
    best = max(finite)
    found = {
        "last periodic evaluation": f"{_number(returns[-1])} at step {steps[-1]:,}",
        "best periodic evaluation": f"{best:.1f} at step {steps[returns.index(best)]:,}",
    }
    return f"Not finished: return {_number(returns[-1])} so far", found


def _number(value: float | None) -> str:
    return "not finite" if value is None or not math.isfinite(value) else f"{value:.1f}"


def _film(run_dir: Path, checkpoint: str) -> tuple[tuple[str, bytes] | None, list[str]]:
    """Return the film of the evaluated weights, else the newest film; and a note about a film that is too large."""
    films = sorted((run_dir / run_files.VIDEOS).glob("step_*.mp4"))
    films = [film for film in films if checkpoint and film.name.startswith(checkpoint)] or films
    if not films:
        return None, []
    film = films[-1]
    if (size := film.stat().st_size) > LARGEST_FILM:
        return None, [f"The film videos/{film.name} has {size / 2**20:.0f} MiB; open it from the run's directory."]
    return (film.name, film.read_bytes()), []


def _commands(run_dir: Path, config: RunConfig, *, finished: bool) -> dict[str, str]:
    """Return purpose -> command, for commands that use the run."""
    resume = ["tesserl", "train", "--resume", run_dir]
    more = ["--set", f"total_steps={2 * config.total_steps}"] if finished else []
    return {
        "train longer" if finished else "continue the training": command_line(*resume, *more),
        "evaluate the best checkpoint again": command_line("tesserl", "eval", run_dir, "--episodes", 100),
        "watch it play": command_line("tesserl", "watch", run_dir),
        "film an episode": command_line("tesserl", "eval", run_dir, "--video"),
        "write the policy as one file": command_line("tesserl", "export", run_dir, "--format", "onnx"),
    }
