"""``config import``: convert a configuration of the seed system (a racing-game project) to one of ours.

Each function reads the keys of one part and notes their conversion; `reason_for` explains the keys that are left.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from tesserl_configs.document import render
from tesserl_configs.errors import ConfigError
from tesserl_configs.importer.iqn import import_iqn
from tesserl_configs.importer.network import import_network
from tesserl_configs.importer.policy import IMPORTS, PLACE_OF_PAIRS
from tesserl_configs.importer.reading import read_source
from tesserl_configs.importer.reasons import reason_for
from tesserl_configs.importer.source import TO_MEND, Note, Source
from tesserl_configs.loader import name_from
from tesserl_configs.messages import problems_of
from tesserl_configs.schema import RunConfig


class Import(NamedTuple):
    """A configuration of the seed system, converted to ours."""

    text: str
    """Our YAML."""

    notes: list[Note]
    """One note or more for each key of the file, then those of `to_mend`."""

    lost: list[str]
    """Keys of the file that change the experiment and were not converted; `to_mend` tells what to do."""

    loads: bool
    """True if our file is valid."""

    @property
    def to_mend(self) -> list[Note]:
        """Return the notes about changes by hand that are needed for the same experiment."""
        return [note for note in self.notes if note.key.startswith(TO_MEND)]


def import_config(path: str | Path, *, environment_id: str = "ENVIRONMENT") -> Import:
    """Read a configuration of the seed system and write ours.

    Defaults of the seed system that differ from ours are written out. Each key of the file has a note with its place in
    our file, or with the reason why it has none. `Import.to_mend` lists differences that must be resolved by hand.

    Args:
        path: YAML file of any release of the seed system.
        environment_id: Gymnasium id of the task to write; the seed system plays one game.

    Returns:
        Our YAML, and notes about every key.

    Raises:
        ConfigError: the file cannot be read, is not YAML or is a file of Tesserl, or the seed system would refuse a
            value.
    """
    path = Path(path)
    source = read_source(path)
    try:
        data = _converted(source, name_from(path), environment_id)
    except (ArithmeticError, IndexError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {source.last}: not a value as the seed system has it there ({error})") from error
    _mend_the_task(source, data, environment_id)
    named = {note.key for note in source.notes}
    source.notes += [
        Note(source.name(key), "", reason_for(source, key)) for key in source.leaves if source.name(key) not in named
    ]
    order = {source.name(key): number for number, key in enumerate(source.leaves)}
    notes = sorted(dict.fromkeys(source.notes), key=lambda note: order.get(note.key, len(order)))
    problems = list(_problems(data))
    return Import(render(data), [*notes, *problems], source.lost, loads=not problems)


def _converted(source: Source, name: str, environment_id: str) -> dict[str, Any]:
    """Return our data."""
    algorithm = source.take("training.algorithm", "algorithm", "iqn")
    network = import_network(source)
    environment = _environment(source, environment_id, has_image=network["vision"]["kind"] != "none")
    data: dict[str, Any] = {
        "name": source.take("training.run_name", "name", name),
        "total_steps": _last_knot(source),
        "environment": environment,
        "nn": network,
        "algorithm": algorithm,
    }
    if algorithm == "iqn":
        environment.setdefault("wrappers", []).append({"kind": "clock"})  # for its horizon
        return data | import_iqn(source)
    return data | IMPORTS[algorithm](source)


def _mend_the_task(source: Source, data: dict[str, Any], environment_id: str) -> None:
    """Note keys that depend on the task, which the importer does not know."""
    if environment_id == "ENVIRONMENT":
        source.mend("environment.id", "write the Gymnasium id of your task there")
    if data["nn"]["vision"]["kind"] != "none":
        source.mend(
            "environment.wrappers",
            "images have one grey channel there: write {kind: grayscale} first if those of your task have colours",
        )
    if source.has("state_normalization"):
        source.mend(
            "nn.vector.normalization",
            "vectors are normalised there by statistics of the game (state_normalization, and constants in its code); "
            "write those of your task, kind fixed",
            *(key for key in source.leaves if key.startswith("state_normalization.")),
        )
    if data.get("pairs", {}).get("source", {}).get("path") == PLACE_OF_PAIRS:
        text = "write pairs with `tesserl pairs make`, and their directory there"
        source.mend("pairs.source.path", text, "dpo.dpo_offline_pairs_jsonl")


def _problems(data: dict[str, Any]) -> Iterator[Note]:
    """Yield the problems of our file."""
    try:
        RunConfig.model_validate(data)
    except ValidationError as error:
        for problem in problems_of(error, data):
            yield Note(f"{TO_MEND}{problem.path}", "", problem.message)


def _last_knot(source: Source) -> int:
    text = "where its schedule ends; the seed system runs until it is stopped"
    schedule = source.take("training.lr_schedule", "total_steps", None, text)
    speed = source.value("training.global_schedule_speed", 1)
    return (0 if schedule is None else int(schedule[-1][0] * speed)) or 15_000_000


def _environment(source: Source, environment_id: str, *, has_image: bool) -> dict[str, Any]:
    collectors = source.take("performance.gpu_collectors_count", "environment.num_envs", 4, "one environment each")
    environment: dict[str, Any] = {"id": environment_id, "num_envs": collectors, "vectorization": "async"}
    if has_image:
        sizes = {name: _image_size(source, name) for name in ("height", "width")}
        environment["wrappers"] = [{"kind": "resize", **sizes}]
    return environment


def _image_size(source: Source, name: str) -> int:
    """Return the height or the width of images; the key may be abbreviated to its first letter."""
    block = "nn.vis.image_size"
    key = f"{block}.{name}" if source.value(f"{block}.{name[0]}") is None else f"{block}.{name[0]}"
    return int(source.take(key, f"environment.wrappers, {name} of resize", 256))
