"""``config import``: from a configuration of the seed system (a racing-game project) to one of ours.

Every function reads the keys of one part, says what it made of them, and leaves the rest to `reason_for`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from tesserl_configs.document import render
from tesserl_configs.errors import ConfigError
from tesserl_configs.importer_iqn import import_iqn
from tesserl_configs.importer_network import import_network
from tesserl_configs.importer_policy import IMPORTS, PLACE_OF_PAIRS
from tesserl_configs.importer_reasons import reason_for
from tesserl_configs.importer_source import Note, Source, source_of
from tesserl_configs.loader import name_from, read_document
from tesserl_configs.messages import problems_of
from tesserl_configs.schema import RunConfig


class Import(NamedTuple):
    """What `import_config` returns."""

    text: str
    """Our YAML."""

    notes: list[Note]
    """One note for each key of the file, then one for each thing that is still to be done by hand."""


def import_config(path: str | Path, *, environment_id: str = "ENVIRONMENT") -> Import:
    """Reads a configuration of the seed system and writes ours.

    The seed system's own defaults are written out where they differ from ours; what is not carried over is named.

    Args:
        path: its YAML file.
        environment_id: Gymnasium id of the task to write; the seed system plays one game.

    Returns:
        Our YAML and what became of every key.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or a value is not of the seed system's form.
    """
    path = Path(path)
    document = read_document(path)
    if document.errors:
        raise ConfigError(*(f"{path}:{error.line}: {error}" for error in document.errors))
    source = source_of(document.data)
    try:
        data, algorithm = _converted(source, name_from(path), environment_id)
    except (ArithmeticError, IndexError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {source.last}: not a value as the seed system has it there ({error})") from error
    source.notes += [Note(key, "", reason_for(key, algorithm)) for key in source.leaves if key not in source.taken]
    order = list(source.leaves)
    notes = sorted(dict.fromkeys(source.notes), key=lambda note: order.index(note.key))
    return Import(render(data), [*notes, *_left_to_do(data, environment_id)])


def _converted(source: Source, name: str, environment_id: str) -> tuple[dict[str, Any], str]:
    """Our data, and the algorithm."""
    algorithm = source.take("training.algorithm", "algorithm", "iqn")
    data: dict[str, Any] = {
        "name": str(source.take("training.run_name", "name", name)),
        "total_steps": _last_knot(source),
        "environment": _environment(source, environment_id),
        "nn": import_network(source, algorithm),
        "algorithm": algorithm,
    }
    if algorithm == "iqn":
        return data | import_iqn(source), algorithm
    if algorithm in IMPORTS:
        return data | IMPORTS[algorithm](source, int(data["environment"]["num_envs"])), algorithm
    return data, algorithm


def _left_to_do(data: dict[str, Any], environment_id: str) -> Iterator[Note]:
    if environment_id == "ENVIRONMENT":
        yield Note("to mend: environment.id", "", "write the Gymnasium id of your task there")
    if data.get("pairs", {}).get("source", {}).get("path") == PLACE_OF_PAIRS:
        yield Note("to mend: pairs.source.path", "", "write pairs with `tesserl pairs make`, and their directory there")
    yield Note("to mend: total_steps", "", "the seed system runs until it is stopped; this is where its schedules end")
    try:
        RunConfig.model_validate(data)
    except ValidationError as error:
        for problem in problems_of(error, data):
            yield Note(f"to mend: {problem.path}", "", problem.message)


def _last_knot(source: Source) -> int:
    schedule = source.take("training.lr_schedule", "optimizer.learning_rate", None)
    speed = source.leaves.get("training.global_schedule_speed") or 1
    return (0 if schedule is None else int(schedule[-1][0] * speed)) or 15_000_000


def _environment(source: Source, environment_id: str) -> dict[str, Any]:
    collectors = source.take("performance.gpu_collectors_count", "environment.num_envs", 4, "one environment each")
    return {"id": environment_id, "num_envs": collectors, "vectorization": "async"}
