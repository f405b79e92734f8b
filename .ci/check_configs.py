"""Load every given experiment, with every run of a sweep and every corner of a search, without installing torch.

python .ci/check_configs.py FILE...
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from tesserl_configs import ConfigError, load_config
from tesserl_configs.search import load_search
from tesserl_configs.sweep import load_sweep

LOADERS: dict[str, Callable[[str], object]] = {"sweeps": load_sweep, "search": load_search}
"""Directory of configs/ -> the function that reads its files, for files that do not describe a run."""


def main(paths: list[str]) -> int:
    """Return 0 if all of ``paths`` load; print the reason for each that does not."""
    failed = 0
    for path in paths:
        try:
            LOADERS.get(Path(path).parent.name, load_config)(path)
        except ConfigError as error:
            print(f"{path}: {error}", file=sys.stderr)
            failed += 1
    print(f"{len(paths) - failed} of {len(paths)} experiments are valid")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
