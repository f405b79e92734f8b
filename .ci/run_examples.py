"""Run the Python blocks of Markdown files; the blocks of one file share one namespace.

    python .ci/run_examples.py FILE...

A block that opens with ```` ```python no-run ```` is shown only.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_examples(path: Path) -> int:
    """Run every block of ``path``, with the file's own line numbers in tracebacks; return how many there were."""
    text = path.read_text(encoding="utf-8")
    names: dict[str, object] = {"__name__": "__main__"}
    count = 0
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start(1))
        exec(compile("\n" * line + block.group(1), str(path), "exec"), names)  # noqa: S102 - running it is the purpose
        count += 1
    return count


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(f"{argument}: {run_examples(Path(argument))} example(s) ran")
