"""Count the lines of every package's sources: code, docstrings, comments and blanks apart.

    python .ci/count_lines.py                                        the table of this checkout
    python .ci/count_lines.py --against .ci/records/0.1/lines.json   the same, beside recorded counts
    python .ci/count_lines.py --root CHECKOUT --record FILE          write the counts of another checkout as JSON

Each line is counted once. A line that holds a token of code is code, even with a comment behind it. A docstring is a
string that stands alone as a statement; its blank lines belong to it.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import tokenize
from collections import Counter
from pathlib import Path

KINDS = ("code", "docstrings", "comments", "blanks")
LAYOUT = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
Counts = dict[str, dict[str, int]]


def docstring_lines(source: str) -> set[int]:
    """Return the numbers of the lines on which a string stands alone as a statement."""
    return {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def count_source(source: str) -> Counter[str]:
    """Count the lines of one module by kind."""
    docstrings = docstring_lines(source)
    code, comments = set[int](), set[int]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        elif token.type not in LAYOUT:
            code.update(range(token.start[0], token.end[0] + 1))
    code -= docstrings
    comments -= docstrings | code
    total = len(source.splitlines())
    blanks = total - len(docstrings | code | comments)
    return Counter(
        files=1, lines=total, code=len(code), docstrings=len(docstrings), comments=len(comments), blanks=blanks
    )


def count_packages(root: Path) -> Counts:
    """Count the sources of each package below ``root/packages``, and of all of them together."""
    counts = {}
    for package in sorted(path.parent.name for path in root.glob("packages/*/pyproject.toml")):
        files = sorted((root / "packages" / package / "src").rglob("*.py"))
        counts[package] = sum((count_source(path.read_text(encoding="utf-8")) for path in files), Counter[str]())
    counts["all"] = sum(counts.values(), Counter[str]())
    return {name: {kind: count[kind] for kind in ("files", "lines", *KINDS)} for name, count in counts.items()}


def table(counts: Counts, recorded: Counts | None) -> str:
    """Lay the counts out, each with its difference to the recorded one in brackets."""
    names = [*sorted({*counts, *(recorded or {})} - {"all"}), "all"]
    rows = [["package", "files", "lines", *KINDS]]
    for name in names:
        row = [name]
        for kind in rows[0][1:]:
            count, before = counts.get(name, {}).get(kind, 0), (recorded or {}).get(name, {}).get(kind, 0)
            row.append(f"{count:,}" if recorded is None else f"{count:,} ({count - before:+,})")
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(cells))
        for cells in (list(zip(row, widths, strict=True)) for row in rows)
    )


def main() -> None:
    """Print the table; write the counts to the file of --record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).parent.parent, help="the checkout to count")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the counts as JSON")
    parser.add_argument("--against", type=Path, metavar="FILE", help="show the differences to recorded counts")
    arguments = parser.parse_args()
    counts = count_packages(arguments.root)
    if arguments.record is not None:
        arguments.record.parent.mkdir(parents=True, exist_ok=True)
        arguments.record.write_text(json.dumps(counts, indent=2) + "\n", encoding="utf-8")
    recorded = None if arguments.against is None else json.loads(arguments.against.read_text(encoding="utf-8"))
    print(table(counts, recorded))


if __name__ == "__main__":
    main()
