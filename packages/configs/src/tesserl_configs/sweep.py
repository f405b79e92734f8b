"""Sweeps: one YAML file that stands for many runs, seeds x variants (x tasks)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError

from tesserl_configs.base import Block, NonNegativeInt
from tesserl_configs.document import Document, ancestors
from tesserl_configs.errors import ConfigError
from tesserl_configs.loader import load_config, read_document
from tesserl_configs.messages import TYPES, nearest
from tesserl_configs.schema import RunConfig

NAME_PATTERN = r"^\w[\w.+-]*$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
OWN_KEYS = {"seed": "seeds", "name": "name"}
"""Keys of a run that the sweep sets itself, and the key of the sweep that says how."""


class SweepConfig(Block):
    """The file of a sweep; every run of it is one file of a run with some keys changed."""

    name: Name | None = Field(default=None, description="Name of the sweep and of its directory; null: the file's.")
    config: str | None = Field(
        default=None,
        min_length=1,
        description=(
            "File that the runs start from, relative to the file of the sweep; {task} and {variant} stand for the "
            "names. A task or a variant may name another one."
        ),
    )
    seeds: tuple[NonNegativeInt, ...] = Field(min_length=1, description="Seeds of each variant, >= 0, all different.")
    tasks: dict[Name, dict[str, Any] | None] = Field(
        default_factory=dict, description="Name -> keys of a run to change, dotted as for --set; may hold `config`."
    )
    variants: dict[Name, dict[str, Any] | None] = Field(
        min_length=1,
        description=(
            "Name -> keys of a run to change, after those of the task; may hold `config`, and `tasks`, the names of "
            "the tasks it is for (default: all)."
        ),
    )


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep."""

    task: str | None
    variant: str
    seed: int
    config: RunConfig

    @property
    def path(self) -> Path:
        """Where it lives below the sweep's directory."""
        return _path_of(self.task, self.variant, self.seed)


@dataclass(frozen=True)
class Sweep:
    """All runs of a sweep: tasks in their order, in each the seeds, in each the variants.

    A sweep that is stopped half-way has every variant at the first seeds.
    """

    name: str
    runs: tuple[SweepRun, ...]
    tasks: tuple[str, ...]
    """Names of all tasks of the file, those without runs here among them."""

    variants: tuple[str, ...]
    """Names of all variants of the file; the first is the one that the others are compared with."""

    paths: tuple[Path, ...]
    """Where all runs of the file live, those that are left out here among them; in their order."""


Cell = tuple[str | None, str]
"""A task, where there are tasks, and a variant for it: the runs that differ in nothing but the seed."""


@dataclass(frozen=True)
class _Change:
    """One key of a run that a task, a variant or the command line sets."""

    override: str
    place: str

    @property
    def key(self) -> str:
        return self.override.partition("=")[0].strip()


def load_sweep(
    path: str | Path,
    overrides: Iterable[str] = (),
    *,
    name: str | None = None,
    tasks: Iterable[str] = (),
    variants: Iterable[str] = (),
) -> Sweep:
    """Reads a sweep and every run of it.

    Args:
        path: a YAML file, see ``SweepConfig``.
        overrides: ``a.b=value`` each, for every run, after the changes of its task and its variant.
        name: of the sweep, in place of the file's.
        tasks: names of the tasks to keep; none means all.
        variants: names of the variants to keep; none means all.

    Returns:
        The runs, validated.

    Raises:
        ConfigError: the file or a run of it is wrong; every problem has its place.
    """
    path, overrides = Path(path), tuple(overrides)
    document = read_document(path)
    sweep = _validated(path, document)
    tasks, variants = tuple(tasks), tuple(variants)
    problems = [*_unknown("--task", tasks, sweep.tasks), *_unknown("--variant", variants, sweep.variants)]
    problems += [*_refused_overrides(overrides), *_refused_keys(path, document, sweep)]
    if problems:
        raise ConfigError(*problems)
    name = name or sweep.name or path.stem
    if not re.fullmatch(NAME_PATTERN, name):
        raise ConfigError(f"{path}: a name is letters, digits and _ . + -, as it becomes a directory; got {name!r}")
    cells = list(_cells(sweep))
    separator = _separator(cells)
    runs: list[SweepRun] = []
    found: dict[str, list[Cell]] = {}  # what is wrong, and where it is: the mistake of a file is one of many runs
    for task in [task for task in sweep.tasks or (None,) if not tasks or task in tasks]:
        configs: dict[str, RunConfig] = {}
        for cell in [cell for cell in cells if cell[0] == task and (not variants or cell[1] in variants)]:
            try:
                config = _load_run(path, document, sweep, *cell, overrides)
            except ConfigError as error:
                for message in error.messages:
                    found.setdefault(message, []).append(cell)
                continue
            full_name = separator.join(part for part in (name, *cell) if part)
            configs[cell[1]] = config.model_copy(update={"name": full_name})
        runs += [
            SweepRun(task, variant, seed, config.model_copy(update={"seed": seed}))
            for seed in sweep.seeds
            for variant, config in configs.items()
        ]
    if found:
        raise ConfigError(*(_with_cells(message, path, document, where) for message, where in found.items()))
    if not runs:
        raise ConfigError(
            f"{path}: no run is left: none of the variants {', '.join(variants or sweep.variants)} is for "
            f"{', '.join(tasks or sweep.tasks)}; choose others with --task and --variant"
        )
    paths = [
        _path_of(task, variant, seed)
        for task in sweep.tasks or (None,)
        for seed in sweep.seeds
        for its_task, variant in cells
        if its_task == task
    ]
    return Sweep(name, tuple(runs), tuple(sweep.tasks), tuple(sweep.variants), tuple(paths))


def _path_of(task: str | None, variant: str, seed: int) -> Path:
    return Path(task or "", variant, f"seed-{seed}")


def _cells(sweep: SweepConfig) -> Iterator[Cell]:
    """Every task with every variant that is for it, in the order of the file."""
    for task in sweep.tasks or (None,):
        for variant, changes in sweep.variants.items():
            if task is None or task in ((changes or {}).get("tasks") or sweep.tasks):
                yield task, variant


def _separator(cells: Iterable[Cell]) -> str:
    """The fewest dashes that keep ``a`` and ``b-c`` apart from ``a-b`` and ``c``; enough of them always do."""
    names = [tuple(part for part in cell if part) for cell in cells]
    return next("-" * n for n in count(1) if len({("-" * n).join(parts) for parts in names}) == len(names))


def _validated(path: Path, document: Document) -> SweepConfig:
    problems = [f"{path}:{error.line}: {error}" for error in document.errors]
    try:
        sweep = SweepConfig.model_validate(document.data)
    except ValidationError as error:
        problems += [
            _message(path, document, details)
            for details in error.errors(include_url=False)
            if not (details["type"] == "too_short" and details["input"])  # pydantic counts the valid entries alone
        ]
    else:
        if len(set(sweep.seeds)) < len(sweep.seeds):
            problems.append(f"{_place(path, document, 'seeds')}: a seed stands twice; every run has its own")
    if problems:
        raise ConfigError(*problems)
    return sweep


def _message(path: Path, document: Document, details: Mapping[str, Any]) -> str:
    *above, last = (str(part) for part in details["loc"] if part != "[key]")
    key, kind, context = ".".join([*above, last]), details["type"], details.get("ctx", {})
    field = SweepConfig.model_fields.get(above[0] if above else last)
    meaning = f"; {field.description}" if field and field.description else ""
    got = json.dumps(details["input"], default=str)[:60]
    if kind == "extra_forbidden":
        text = f"unknown key{nearest(last, SweepConfig.model_fields)}"
    elif kind == "missing":
        text = f"missing{meaning}"
    elif kind == "string_pattern_mismatch":
        text = f"a name is letters, digits and _ . + -, as it becomes a directory; got {got}"
    elif kind in ("too_short", "string_too_short"):
        text = f"is empty{meaning}"
    elif kind == "greater_than_equal":
        text = f"expected a value >= {context['ge']}, got {got}"
    else:
        text = f"expected {TYPES.get(kind, 'another value')}, got {got}{meaning}"
    return f"{_place(path, document, key)}: {text}"


def _refused_overrides(overrides: Iterable[str]) -> Iterator[str]:
    """Keys of the command line that are the sweep's own business."""
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key in OWN_KEYS:
            yield f"--set {override}: every run has its own; say it in {OWN_KEYS[key]} of the sweep"


def _refused_keys(path: Path, document: Document, sweep: SweepConfig) -> Iterator[str]:
    """Keys of tasks and variants that are the sweep's own business, and variants for tasks that do not exist."""
    for block, entries in (("tasks", sweep.tasks), ("variants", sweep.variants)):
        for name, changes in entries.items():
            for key in changes or {}:
                if key in OWN_KEYS:
                    place = _place(path, document, f"{block}.{name}.{key}")
                    yield f"{place}: every run has its own; say it in {OWN_KEYS[key]} of the sweep"
    for name, changes in sweep.variants.items():
        if (wanted := (changes or {}).get("tasks")) is None:
            continue
        place = _place(path, document, f"variants.{name}.tasks")
        if not isinstance(wanted, list) or not wanted:
            yield f"{place}: expected a list of tasks, got {json.dumps(wanted)}"
        else:
            yield from (problem for task in wanted for problem in _unknown(place, (str(task),), sweep.tasks))


def _unknown(place: str, names: Iterable[str], known: Iterable[str]) -> list[str]:
    known = tuple(known)
    return [
        f"{place}: there is no {name}{nearest(name, known) or '; there are: ' + (', '.join(known) or 'none')}"
        for name in names
        if name not in known
    ]


def _load_run(
    path: Path, document: Document, sweep: SweepConfig, task: str | None, variant: str, overrides: tuple[str, ...]
) -> RunConfig:
    """One variant on one task; problems are placed where the sweep's file, or the command line, says the key."""
    base, base_place, changes = sweep.config, "config", []
    for block, name, entries in (("tasks", task, sweep.tasks), ("variants", variant, sweep.variants)):
        for key, value in ((entries.get(name) if name else None) or {}).items():
            place = f"{block}.{name}.{key}"
            if key == "config":
                base, base_place = value, place
            elif (block, key) != ("variants", "tasks"):
                line = document.lines.get(place)
                changes.append(_Change(f"{key}={json.dumps(value)}", f"{path}:{line}: {block}.{name}"))
    changes += [_Change(override, f"--set {override.partition('=')[0]}") for override in overrides]
    where = _place(path, document, base_place)
    if not isinstance(base, str) or (task is None and "{task}" in base):
        wanted = "a file that the runs start from" if not isinstance(base, str) else "no {task}, as there are no tasks"
        raise ConfigError(f"{where}: expected {wanted}, got {json.dumps(base)} for the variant {variant}")
    file = path.parent / base.replace("{task}", task or "").replace("{variant}", variant)
    if not file.is_file():
        raise ConfigError(f"{where}: there is no file {file}; paths are relative to the file of the sweep")
    try:
        return load_config(file, [change.override for change in changes])
    except ConfigError as error:
        raise ConfigError(*(_replaced(message, changes) for message in error.messages)) from error


def _with_cells(message: str, path: Path, document: Document, cells: list[Cell]) -> str:
    """A message with the runs that it is about, unless it stands in their variant."""
    task, variant = cells[0]
    place = _place(path, document, f"variants.{variant}")
    if message.startswith((f"{place}:", f"{place}.")):
        return message
    more = f", and {len(cells) - 1} more" if len(cells) > 1 else ""
    return f"{message} (in {place}{f' on the task {task}' if task else ''}{more})"


def _replaced(message: str, changes: Iterable[_Change]) -> str:
    """A message of ``load_config`` about ``--set KEY``, with the place that set the key; the last one did."""
    found = message
    for change in changes:
        for start in (f"--set {change.key}: ", f"--set {change.override}: "):
            if message.startswith(start):
                found = f"{change.place}: {message.removeprefix(start)}"
    return found


def _place(path: Path, document: Document, key: str) -> str:
    line = next((document.lines[above] for above in ancestors(key) if above in document.lines), None)
    return f"{path}:{line}: {key}" if line else f"{path}: {key}"
