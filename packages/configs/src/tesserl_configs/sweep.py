"""Sweeps: one YAML file that describes many runs, seeds x variants (x tasks)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tesserl_configs.base import short_enough
from tesserl_configs.changes import Change, base_file, changes_of_command_line, load_changed
from tesserl_configs.errors import ConfigError
from tesserl_configs.schema import RunConfig
from tesserl_configs.sweep_file import OWN_KEYS, SweepFile, directory_name, read_sweep_file, unknown_names


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep."""

    task: str | None
    variant: str
    seed: int
    config: RunConfig

    @property
    def path(self) -> Path:
        """Return the directory of the run, relative to that of the sweep."""
        return _path_of(self.task, self.variant, self.seed)


@dataclass(frozen=True)
class Sweep:
    """All runs of a sweep: tasks in their order, in each the seeds, in each the variants."""

    name: str
    runs: tuple[SweepRun, ...]
    tasks: tuple[str, ...]
    """Names of all tasks of the file, including those without runs here."""

    variants: tuple[str, ...]
    """Names of all variants of the file; the others are compared with the first."""

    paths: tuple[Path, ...]
    """Directories of all runs of the file in order, including runs that are left out here."""


Cell = tuple[str | None, str]
"""A task (None without tasks) and a variant; the runs of a cell differ only in their seeds."""


def load_sweep(
    path: str | Path,
    overrides: Iterable[str] = (),
    *,
    name: str | None = None,
    tasks: Iterable[str] = (),
    variants: Iterable[str] = (),
) -> Sweep:
    """Read a sweep and every run of it.

    Args:
        path: a YAML file, see ``SweepConfig``.
        overrides: ``a.b=value`` each, for every run, after the changes of its task and its variant.
        name: name of the sweep; None takes the file's.
        tasks: names of the tasks to keep; none means all.
        variants: names of the variants to keep; none means all.

    Returns:
        The runs, validated.

    Raises:
        ConfigError: the file or a run of it is wrong; every problem has its place.
    """
    path, overrides, tasks, variants = Path(path), tuple(overrides), tuple(tasks), tuple(variants)
    file = read_sweep_file(path)
    sweep = file.config
    problems = [*unknown_names("--task", tasks, sweep.tasks), *unknown_names("--variant", variants, sweep.variants)]
    problems += [*_refused_overrides(overrides), *file.refusals()]
    if problems:
        raise ConfigError(*problems)
    name = directory_name(path, name or sweep.name)
    cells = list(_cells(file))
    kept = [(task, it) for task, it in cells if (not tasks or task in tasks) and (not variants or it in variants)]
    if not kept:
        raise ConfigError(
            f"{path}: no run is left: none of the variants {', '.join(variants or sweep.variants)} is for "
            f"{', '.join(tasks or sweep.tasks)}; choose others with --task and --variant"
        )
    configs, separator = _load_cells(file, kept, overrides), _separator(cells)
    runs = []
    for task, variant, seed in _in_order(kept, sweep.seeds):
        full_name = _full_name(path, separator.join(part for part in (name, task, variant) if part))
        config = configs[task, variant].model_copy(update={"name": full_name, "seed": seed})
        runs.append(SweepRun(task, variant, seed, config))
    paths = [_path_of(*run) for run in _in_order(cells, sweep.seeds)]
    return Sweep(name, tuple(runs), tuple(sweep.tasks), tuple(sweep.variants), tuple(paths))


def _cells(file: SweepFile) -> Iterator[Cell]:
    """Yield every pair of a task and a variant for it, in the order of the file."""
    tasks = file.config.tasks
    for task in tasks or (None,):
        for variant in file.config.variants:
            if task is None or task in (file.changes("variants", variant).get("tasks") or tasks):
                yield task, variant


def _in_order(cells: Iterable[Cell], seeds: Iterable[int]) -> Iterator[tuple[str | None, str, int]]:
    """Return the runs by task, then seed, then variant, so that a stopped sweep has all variants of a seed."""
    by_task: dict[str | None, list[str]] = {}
    for task, variant in cells:
        by_task.setdefault(task, []).append(variant)
    return ((task, it, seed) for task, variants in by_task.items() for seed in seeds for it in variants)


def _full_name(path: Path, name: str) -> str:
    """Return the name of a run; refuse one that is too long."""
    try:
        return short_enough(name)
    except ValueError as error:
        raise ConfigError(f"{path}: the name of the run {name}: {error}; shorten those it is made of") from error


def _path_of(task: str | None, variant: str, seed: int) -> Path:
    return Path(task or "", variant, f"seed-{seed}")


def _separator(cells: Iterable[Cell]) -> str:
    """Return the fewest dashes that keep ``a`` and ``b-c`` apart from ``a-b`` and ``c``."""
    names = [tuple(part for part in cell if part) for cell in cells]
    return next("-" * n for n in count(1) if len({("-" * n).join(parts) for parts in names}) == len(names))


def _refused_overrides(overrides: Iterable[str]) -> Iterator[str]:
    """Yield a message for each override of a key that only the sweep sets."""
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key in OWN_KEYS:
            yield f"--set {override}: every run has its own; set it with {OWN_KEYS[key]} of the sweep"


def _load_cells(file: SweepFile, cells: Iterable[Cell], overrides: tuple[str, ...]) -> dict[Cell, RunConfig]:
    """Load the configuration of each cell; raise one error, which reports a problem of many runs once."""
    configs: dict[Cell, RunConfig] = {}
    found: dict[str, list[Cell]] = {}  # message -> its cells
    for cell in cells:
        try:
            configs[cell] = _load_cell(file, *cell, overrides)
        except ConfigError as error:
            for message in error.messages:
                found.setdefault(message, []).append(cell)
    if found:
        raise ConfigError(*(_with_cells(message, file, where) for message, where in found.items()))
    return configs


def _load_cell(file: SweepFile, task: str | None, variant: str, overrides: tuple[str, ...]) -> RunConfig:
    """Load one variant on one task; problems have the place where the sweep or the command line sets the key."""
    base, base_place, changes = file.config.config, "config", list[Change]()
    for block, name in (("tasks", task), ("variants", variant)):
        for key, value in file.changes(block, name).items():
            place = f"{block}.{name}.{key}"
            if key == "config":
                base, base_place = value, place
            elif (block, key) != ("variants", "tasks"):
                line = file.document.lines.get(place)
                changes.append(Change.to(key, value, f"{file.path}:{line}: {block}.{name}"))
    changes += changes_of_command_line(overrides)
    where = file.place(base_place)
    if not isinstance(base, str) or (task is None and "{task}" in base):
        wanted = "a file that the runs start from" if not isinstance(base, str) else "no {task}, as there are no tasks"
        raise ConfigError(f"{where}: expected {wanted}, got {json.dumps(base)} for the variant {variant}")
    named = base.replace("{task}", task or "").replace("{variant}", variant)
    return load_changed(base_file(file.path, named, place=where, kind="sweep"), changes)


def _with_cells(message: str, file: SweepFile, cells: list[Cell]) -> str:
    """Add the runs to a message, unless the message names their variant already."""
    task, variant = cells[0]
    place = file.place(f"variants.{variant}")
    if message.startswith((f"{place}:", f"{place}.")):
        return message
    more = f", and {len(cells) - 1} more" if len(cells) > 1 else ""
    return f"{message} (in {place}{f' on the task {task}' if task else ''}{more})"
