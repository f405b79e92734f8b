"""Find the runs below a directory, and read variant, task, seed and score of each. Imports no torch."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tesserl_analysis import ComparisonError, read_metrics, run_files, series
from tesserl_analysis.comparison import ComparisonArgumentError, hint, unknown
from tesserl_configs.document import parse
from tesserl_storage.sealed_json import SEAL, open_seal
from tesserl_training.checkpoints.run_identity import described, require_identity
from tesserl_training.metric_names import EVALUATION

SEED = re.compile(r"seed-\d+")


@dataclass(frozen=True)
class SweepOrder:
    """A sweep: its resolved directory, the order of its names, the paths of its runs."""

    directory: Path
    tasks: tuple[str, ...]
    variants: tuple[str, ...]
    runs: tuple[str, ...]


def sweep_of(path: Path) -> SweepOrder | None:
    """Return the sweep in or above a directory, or None."""
    path = path.resolve()
    above = [path, *path.parents][:4]  # a run is at most task/variant/seed deep
    file = next((directory / run_files.ORDER for directory in above if (directory / run_files.ORDER).is_file()), None)
    if file is None:
        return None
    remedy = "start the sweep again, which writes it, or remove it: runs then stand by name"
    order = {"runs": []} | _read_json(file, remedy)  # old sweeps did not list their runs
    names: dict[str, tuple[str, ...]] = {}
    for key in ("tasks", "variants", "runs"):
        value = order.get(key)
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise ComparisonError(f"{file}: {key}: expected a list of names, got {json.dumps(value):.60}; {remedy}")
        names[key] = tuple(value)
    return SweepOrder(file.parent, **names)


def find_runs(paths: Iterable[Path]) -> list[tuple[Path, Path]]:
    """Return (run, starting directory) for each run below the directories once, sorted by path below the latter."""
    found: dict[Path, tuple[Path, Path]] = {}
    for path in paths:
        files = filter(Path.is_file, path.rglob(run_files.CONFIG)) if path.is_dir() else ()
        here = sorted((file.parent for file in files if not _is_of_sweep(file)), key=_natural)
        if not here and not (path.is_dir() and missing_runs([path])):
            raise ComparisonArgumentError(
                f"{path}: expected runs, got {described(path, 'config.yaml in or below it')}; name a run or a sweep"
            )
        for run in here:
            found.setdefault(run.resolve(), (run, path))
    return list(found.values())


def missing_runs(paths: Iterable[Path], tasks: Sequence[str] = ()) -> list[Path]:
    """Return sweep runs below the paths that have no configuration: they never started or failed at once."""
    missing: dict[Path, Path] = {}
    for path in paths:
        base = path.resolve()
        places = [path, *(file.parent for file in path.rglob(run_files.ORDER))]
        for sweep in filter(None, map(sweep_of, places)):
            begun = sweep.directory.glob("*/*/seed-*" if sweep.tasks else "*/seed-*")
            begun_runs = sorted((run for run in begun if SEED.fullmatch(run.name)), key=_natural)
            for run in [*(sweep.directory / name for name in sweep.runs), *begun_runs]:
                chosen = not (tasks and sweep.tasks) or run.relative_to(sweep.directory).parts[0] in tasks
                if chosen and run.is_relative_to(base) and not (run / run_files.CONFIG).is_file():
                    missing.setdefault(run, path / run.relative_to(base))
    return list(missing.values())


def identify(directory: Path, root: Path, *, by: str, environments: bool = False) -> tuple[str, str, int]:
    """Return variant, task and seed of a run.

    Args:
        directory: directory of the run.
        root: the directory from which the run was found. Names come from the run's sweep; without a sweep, from the
            path below the root, ``<task>/<variant>/seed-<n>`` or ``<variant>/seed-<n>``; otherwise from the
            environment and the configuration's name.
        by: ``variant``, or a dotted configuration key whose values are the variants.
        environments: use the environment's id as the task instead of the sweep's name for it.

    Raises:
        StorageError: the configuration is not as the run wrote it.
        ComparisonError: the configuration is invalid or has no such key.
    """
    file = directory / run_files.CONFIG
    if (directory / run_files.IDENTITY).exists():  # absent in runs of version 0.1
        require_identity(directory)
    try:
        config = parse(file.read_text(encoding="utf-8")).data
    except ValueError as error:
        raise ComparisonError(f"{file}: {error}; leave the run out") from error
    names = _below(directory, root)
    task = names[-3] if len(names) > 2 and not environments else _value(config, "environment.id", file)
    key = "name" if by == "variant" else by
    variant = names[-2] if key != by and len(names) > 1 else _value(config, key, file, given=key == by)
    seed = _value(config, "seed", file)
    if not seed.isdecimal():
        raise ComparisonError(f"{file}: seed: expected a whole number, got {seed:.60}; leave the run out")
    return variant, task, int(seed)


def read_score(directory: Path, metric: str, *, last: bool) -> tuple[float, tuple[list[int], list[float]]]:
    """Return the score of a finished run.

    Args:
        directory: directory of the run.
        metric: name in ``metrics.csv``.
        last: score the last weights instead of the best; for a metric other than the evaluations' return, take its
            last value instead of its best.

    Returns:
        The score, and the metric as (steps, values).

    Raises:
        StorageError: ``evaluation.json`` was changed.
        ComparisonError: the run has no such metric, or the score is not finite.
    """
    try:
        rows = read_metrics(directory / run_files.METRICS)
    except ValueError as error:
        raise ComparisonError(f"{directory}: metrics.csv: a bad line ({error}); leave the run out") from error
    curve = series(rows, metric)
    if metric == EVALUATION:
        file, key = directory / run_files.EVALUATION, "last_return_mean" if last else "return_mean"
        document = _read_json(file, "leave the run out")
        if SEAL in document:  # absent in runs of version 0.1
            open_seal(file, document)
        score = document.get(key)
        if key in document and score is None:
            raise ComparisonError(f"{directory}: {metric} is not finite (null); leave the run out")
        if not isinstance(score, int | float) or isinstance(score, bool):
            remedy = "leave out the run, or --final" if last else "leave out the run"
            raise ComparisonError(f"{file}: {key}: expected a number, got {json.dumps(score):.60}; {remedy}")
    elif curve[1]:
        finite = [value for value in curve[1] if math.isfinite(value)]  # NaN and infinite values cannot be the best
        score = curve[1][-1] if last or not finite else max(finite)
    else:
        raise unknown(f"{directory}: --metric", metric, "metric", dict.fromkeys(row[1] for row in rows))
    if not math.isfinite(score):
        raise ComparisonError(f"{directory}: {metric} is {score}; leave the run out")
    return float(score), curve


def _is_of_sweep(file: Path) -> bool:
    """Return whether ``config.yaml`` belongs to a sweep, for its variant named `config`, and not to a run."""
    folder = file.resolve().parent
    return folder.name == "configs" and (folder.parent / run_files.ORDER).is_file()


def _below(directory: Path, root: Path) -> tuple[str, ...]:
    """Return the names of task, variant and run from a sweep's directory layout; ``()`` outside of sweeps."""
    here = directory.resolve()
    if not SEED.fullmatch(here.name):
        return ()
    if sweep := sweep_of(here):
        names = here.relative_to(sweep.directory).parts
        if len(names) == (3 if sweep.tasks else 2):
            return names
    names = directory.relative_to(root).parts
    return names if len(names) > 1 else here.parts[-2:]


def _natural(path: Path) -> list[tuple[int, str]]:
    """Return a key that sorts seed-10 after seed-9."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", str(path))]


def _read_json(file: Path, remedy: str) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ComparisonError(f"{file}: not whole JSON ({error}); {remedy}") from error
    if not isinstance(data, dict):
        raise ComparisonError(f"{file}: expected keys and values, got {json.dumps(data):.60}; {remedy}")
    return data


def _value(config: Any, key: str, file: Path, *, given: bool = False) -> str:
    for part in key.split("."):
        if not isinstance(config, dict) or part not in config:
            if given:
                near = hint(part, config if isinstance(config, dict) else ())
                raise ComparisonArgumentError(f"{file}: has no key {key}{near}")
            raise ComparisonError(f"{file}: has no key {key}; leave the run out")
        config = config[part]
    return config if isinstance(config, str) else json.dumps(config)
