"""Check that changelogs name every public name, key and option that appeared or disappeared since a recorded listing.

    python .ci/check_changelogs.py .ci/records/0.1/surface.txt

Names in ``__all__`` and arguments of names that stay must be in the changelog of their package. Keys of the schemas, or
the block that they are in, must be in that of ``configs``, ``trainer`` or the package of the algorithm; options, or
their command, in that of ``trainer``. Run it where all packages are installed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from list_surface import listing

ROOT = Path(__file__).parent.parent
NAME = re.compile(r"name tesserl_(?P<package>\w+)\.(?P<name>\w+)(\(\*?(?P<argument>\w+).*\))?")
BEFORE_KEYS = re.compile(r"^(key|sweep|search) ")


def words_of(*packages: str) -> set[str]:
    """Return the words of changelogs; an option begins with its hyphens."""
    texts = [(ROOT / "packages" / name / "CHANGELOG.md").read_text(encoding="utf-8") for name in packages]
    return set(re.findall(r"--[a-z][a-z-]*|\w+", "\n".join(texts)))


def candidates(line: str, everywhere: set[str]) -> tuple[list[str], list[str]]:
    """Return the changelogs for a line of the listing, and the words of which they must have one, if any."""
    if (named := NAME.fullmatch(line)) is not None:
        package, name, argument = named["package"].replace("_", "-"), named["name"], named["argument"]
        if name == "__version__" or (argument and f"name tesserl_{named['package']}.{name}" not in everywhere):
            return [package], []  # arguments of a name that is new or gone
        return [package], [argument or name]
    if line.startswith("cli "):
        words = line.split()[1:]
        return ["trainer"], [each for each in words if each.startswith("--")][:1] + words[1:2]
    path = re.sub(r"\(\w+\)", "", BEFORE_KEYS.sub("", line).partition(":")[0]).split(".")
    kinds = re.findall(r"\((\w+)\)", line.partition(":")[0])
    return ["configs", "trainer", path[0]], [*path[-1:], *path[1:-1], *kinds]


def main() -> int:
    """Print the lines that no changelog names; return 1 if there are any."""
    before, now = set(Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()), set(listing())
    missing = []
    for line in sorted(before ^ now):
        packages, words = candidates(line, before & now)
        existing = [name for name in packages if (ROOT / "packages" / name).is_dir()]
        if words and existing and not words_of(*existing) & {part for word in words for part in word.split("/")}:
            missing.append(
                f"{'+' if line in now else '-'} {line}: expected {' or '.join(words)} in {', '.join(existing)}"
            )
    print("\n".join(missing) or "every difference is named")
    return bool(missing)


if __name__ == "__main__":
    sys.exit(main())
