"""Rename keys of the schema, one at a time, and check that mypy reports each use of the old name.

    rename_keys.py [--count 20] [--seed 0]

Works on a copy of the sources. Keys that are read by their names are left out: the switches of ``btr``, which become
other keys before anything is validated, and the options of ``environment.atari``, which are arguments of ale_py.
"""

import argparse
import ast
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCHEMA = "packages/configs/src/tesserl_configs"
READ_BY_NAME = ("btr.py", "atari.py")


def fields(path: Path) -> Iterator[tuple[str, str, int, int]]:
    """Yield (class, name, line, column) of every key that a module of the schema declares, ``kind`` excepted."""
    for block in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(block, ast.ClassDef):
            for entry in block.body:
                match entry:
                    case ast.AnnAssign(target=ast.Name(id=name), value=ast.Call(func=ast.Name(id="Field"))):
                        if name not in ("kind", "btr"):
                            yield block.name, name, entry.lineno, entry.col_offset


def mypy(place: Path) -> subprocess.CompletedProcess[str]:
    """Run mypy over the copy, with its cache."""
    sources = [str(path.relative_to(place)) for path in sorted(place.glob("packages/*/src"))]
    command = [sys.executable, "-m", "mypy", *sources]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)  # noqa: S603


def main() -> int:
    """Return the number of renamed keys that mypy did not miss."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    modules = [path for path in sorted((ROOT / SCHEMA).glob("*.py")) if path.name not in READ_BY_NAME]
    keys = [(path, *field) for path in modules for field in fields(path)]
    unseen = 0
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        shutil.copytree(ROOT / "packages", place / "packages", ignore=shutil.ignore_patterns("tests", "__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", place)
        if (before := mypy(place)).returncode:
            sys.exit(f"mypy must pass before anything is renamed, got:\n{before.stdout}")
        for path, block, name, line, column in random.Random(options.seed).sample(keys, options.count):  # noqa: S311
            copy = place / path.relative_to(ROOT)
            text = copy.read_text(encoding="utf-8")
            lines = text.splitlines(keepends=True)
            lines[line - 1] = f"{lines[line - 1][:column]}{name}_renamed{lines[line - 1][column + len(name) :]}"
            copy.write_text("".join(lines), encoding="utf-8")
            seen = mypy(place)
            first = next((each for each in seen.stdout.splitlines() if "error:" in each), "NOTHING REPORTED")
            unseen += seen.returncode == 0
            print(f"{path.stem}.{block}.{name}: {first}", flush=True)
            copy.write_text(text, encoding="utf-8")
    print(f"{options.count - unseen} of {options.count} renamed keys are reported")
    return unseen


if __name__ == "__main__":
    sys.exit(bool(main()))
