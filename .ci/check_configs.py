"""Load every given experiment, and every run of the sweeps among them, without installing torch.

python .ci/check_configs.py FILE...
"""

from __future__ import annotations

import sys
from pathlib import Path

from tesserl_configs import ConfigError, load_config
from tesserl_configs.sweep import load_sweep


def main(paths: list[str]) -> int:
    """Return 0 if all of ``paths`` load; print the reason for each that does not."""
    failed = 0
    for path in paths:
        try:
            (load_sweep if Path(path).parent.name == "sweeps" else load_config)(path)
        except ConfigError as error:
            print(f"{path}: {error}", file=sys.stderr)
            failed += 1
    print(f"{len(paths) - failed} of {len(paths)} experiments are valid")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
