"""Print the packages that came with an installed package, and fail if they differ from its contract.

    python .ci/check_install.py IMPORT_NAME --ours DISTRIBUTION... --without MODULE...

Run in an environment into which this one package was installed, and nothing else.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

PREFIX = "tesserl-"


def problems(import_name: str, ours: list[str], without: list[str]) -> list[str]:
    """List what is wrong with this environment: foreign siblings, forbidden modules, an import from elsewhere."""
    installed = {entry.name.lower().replace("_", "-"): entry.version for entry in distributions()}
    print("installed:", ", ".join(f"{name} {version}" for name, version in sorted(installed.items())))
    found = []
    came = sorted(name for name in installed if name.startswith(PREFIX))
    if came != sorted(ours):
        found.append(f"packages of this repository must be {sorted(ours)}, got {came}")
    forbidden = sorted(name for name in without if find_spec(name) is not None)
    if forbidden:
        found.append(f"{import_name} must do without {forbidden}, yet they were installed with it")
    location = Path(str(importlib.import_module(import_name).__file__))
    if not location.is_relative_to(sys.prefix):
        found.append(f"{import_name} must be imported from {sys.prefix}, got {location}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("import_name")
    parser.add_argument("--ours", nargs="*", default=[])
    parser.add_argument("--without", nargs="*", default=[])
    arguments = parser.parse_args()
    wrong = problems(arguments.import_name, arguments.ours, arguments.without)
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    sys.exit(bool(wrong))
