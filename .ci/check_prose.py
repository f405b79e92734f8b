"""Fail if a docstring opens with a word that CONTRIBUTING.md bans: "What", "Whether", "Which", and the like.

    python .ci/check_prose.py PATH...

Ruff's D401 holds functions to the imperative; this check also covers modules, classes and attributes.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

BANNED = ("How", "That which", "What", "Where", "Whether", "Which", "Who", "Whom", "Whose")


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of every docstring of a file: each string that is a statement, also below an attribute."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def banned_openings(path: Path) -> Iterator[str]:
    """Yield one line for each docstring of a file that opens with a banned word."""
    for line, text in docstrings(path):
        for word in BANNED:
            if text.startswith(f"{word} "):
                yield f'{path}:{line}: a docstring must not open with "{word}": {text.splitlines()[0]}'


if __name__ == "__main__":
    files = sorted(file for argument in sys.argv[1:] for file in Path(argument).rglob("*.py"))
    wrong = [line for file in files for line in banned_openings(file)]
    print(*wrong, sep="\n", file=sys.stderr)
    sys.exit(bool(wrong))
