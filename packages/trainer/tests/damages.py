"""Damages of the directory of a run: physical ones, edits, and files of other runs and steps; chosen by a generator."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tesserl_storage.digests import digest
from tesserl_storage.sealed_json import SEAL, write_sealed
from tesserl_training.checkpoints.run_checkpoints import Checkpoints

Damage = Callable[[random.Random, Path, Path], str]
"""Damages a run, given another one of the same algorithm; returns what it did."""


def files_of(run: Path) -> list[Path]:
    """Return the files that a run consists of; the picture and the locks are not read."""
    files = (path for path in run.rglob("*") if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in files if path.suffix in (".json", ".yaml", ".csv", ".safetensors"))


def read_files_of(run: Path) -> list[Path]:
    """Return the files that a resume from the latest checkpoint or an evaluation of the best one reads."""
    checkpoints = Checkpoints(run)
    read = {checkpoints.find("latest"), checkpoints.find("best")}
    return [path for path in files_of(run) if not path.parent.name.startswith("step_") or path.parent in read]


# --- physical damage ----------------------------------------------------------------------------------------------


def truncate(draw: random.Random, run: Path, other: Path) -> str:
    path = draw.choice(read_files_of(run))
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content))])
    return f"{path.relative_to(run)} cut short"


def flip_bit(draw: random.Random, run: Path, other: Path) -> str:
    path = draw.choice(read_files_of(run))
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    return f"{path.relative_to(run)} with a flipped bit"


def delete(draw: random.Random, run: Path, other: Path) -> str:
    path = draw.choice(read_files_of(run))
    path.unlink()
    return f"{path.relative_to(run)} deleted"


def fill_with_zeros(draw: random.Random, run: Path, other: Path) -> str:
    path = draw.choice(read_files_of(run))
    content = bytearray(path.read_bytes())
    begin = draw.randrange(len(content))
    end = draw.randint(begin + 1, len(content))
    content[begin:end] = bytes(end - begin)
    path.write_bytes(content)
    return f"{path.relative_to(run)} with zeros"


# --- edits --------------------------------------------------------------------------------------------------------

ODD: tuple[Any, ...] = (None, True, -1, 0, 2**70, 1.5, "", "x", "../x", [], [[[]]], {}, {"a": 1})
"""Values that stand in the place of others."""


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every entry of JSON data, those of long lists of numbers at their ends alone."""
    if path:
        yield path
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        if not isinstance(document, list) or key < 2 or key == len(document) - 1:
            yield from places(value, (*path, key))


def change(draw: random.Random, document: Any) -> str:
    """Remove or replace an entry of JSON data."""
    path = draw.choice(list(places(document)))
    owner = document
    for key in path[:-1]:
        owner = owner[key]
    if draw.random() < 0.4:
        del owner[path[-1]]
        return f"without {path}"
    owner[path[-1]] = draw.choice([value for value in ODD if value != owner[path[-1]]])
    return f"{path} = {owner[path[-1]]!r}"


def edit_json(draw: random.Random, run: Path, other: Path) -> str:
    path = draw.choice([path for path in read_files_of(run) if path.suffix == ".json"])
    document = json.loads(path.read_text())
    what = change(draw, document) if document else "nothing"
    path.write_text(json.dumps(document, indent=2))
    return f"{path.relative_to(run)}: {what}"


def edit_yaml(draw: random.Random, run: Path, other: Path) -> str:
    path = run / "config.yaml"
    lines = path.read_text().splitlines(keepends=True)
    number = draw.randrange(len(lines))
    key, colon, value = lines[number].partition(":")
    edited = draw.choice(
        ["", f"{key}{colon} 7\n", f"{key}{colon} null\n", f"{key}{colon} [\n", f"x{key}{colon}{value}"]
    )
    path.write_text("".join([*lines[:number], edited, *lines[number + 1 :]]))
    return f"config.yaml:{number + 1}: {lines[number].strip()!r} -> {edited.strip()!r}"


def reseal_manifest(draw: random.Random, run: Path, other: Path) -> str:
    read = [path for path in read_files_of(run) if path.name == "manifest.json"]
    path = draw.choice([*read, run / "run.json"])
    document = json.loads(path.read_text())
    del document[SEAL]
    for name in ("versions", "record"):  # the first is for people; the second is compared with metrics.csv alone
        document.pop(name, None) if draw.random() < 0.1 else None
    what = change(draw, document)
    write_sealed(path, document)
    return f"{path.relative_to(run)}, resealed: {what}"


def reseal_state(draw: random.Random, run: Path, other: Path) -> str:
    """Change the structure of a state, with all digests right: what is there is not what a run writes."""
    checkpoint = Checkpoints(run).paths()[-1]
    path = checkpoint / draw.choice(["state.json", "state.json", "environments.json"])
    document = json.loads(path.read_text())
    what = change(draw, document) if document else "nothing"
    path.write_text(json.dumps(document))
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    del manifest[SEAL]
    manifest["files"][path.name] = digest(path)
    write_sealed(checkpoint / "manifest.json", manifest)
    return f"{path.relative_to(run)}, resealed: {what}"


# --- swaps --------------------------------------------------------------------------------------------------------


def swap_file_of_another_run(draw: random.Random, run: Path, other: Path) -> str:
    there = {path.relative_to(other) for path in files_of(other)}
    name = draw.choice([path.relative_to(run) for path in read_files_of(run) if path.relative_to(run) in there])
    shutil.copy(other / name, run / name)
    return f"{name} of another run"


def swap_checkpoint_of_another_run(draw: random.Random, run: Path, other: Path) -> str:
    there = {path.name for path in Checkpoints(other).paths()}
    path = draw.choice(
        [path for path in Checkpoints(run).paths()[-2:] if path.name in there] or Checkpoints(run).paths()
    )
    if path.name not in there:  # steps of groups differ from run to run
        there = {Checkpoints(other).paths()[-1].name}
        shutil.rmtree(path)
        shutil.copytree(other / "checkpoints" / there.pop(), path)
        return f"the last checkpoint of another run in {path.name}"
    shutil.rmtree(path)
    shutil.copytree(other / "checkpoints" / path.name, path)
    return f"{path.name} of another run"


def swap_file_of_another_step(draw: random.Random, run: Path, other: Path) -> str:
    if len(Checkpoints(run).paths()) < 2:  # groups of long episodes pass several intervals at once
        return swap_file_of_another_run(draw, run, other)
    one, two = Checkpoints(run).paths()[-2:]
    name = draw.choice([path.name for path in sorted(one.iterdir())])
    shutil.copy(one / name, two / name)
    return f"{name} of {one.name} in {two.name}"


def swap_checkpoint_of_another_step(draw: random.Random, run: Path, other: Path) -> str:
    if len(Checkpoints(run).paths()) < 2:
        return swap_checkpoint_of_another_run(draw, run, other)
    one, two = draw.sample(Checkpoints(run).paths()[-2:], 2)
    shutil.rmtree(two)
    shutil.copytree(one, two)
    return f"{one.name} in the place of {two.name}"


DAMAGES: dict[str, Damage] = {
    "truncated": truncate,
    "bit flipped": flip_bit,
    "deleted": delete,
    "zeros": fill_with_zeros,
    "JSON edited": edit_json,
    "YAML edited": edit_yaml,
    "manifest resealed": reseal_manifest,
    "state resealed": reseal_state,
    "file of another run": swap_file_of_another_run,
    "checkpoint of another run": swap_checkpoint_of_another_run,
    "file of another step": swap_file_of_another_step,
    "checkpoint of another step": swap_checkpoint_of_another_step,
}
FORGED = ("state resealed",)
"""Damages with all digests right: a value that a run could have written itself cannot be told from the run's own."""
