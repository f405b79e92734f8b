"""``python -m tesserl_trainer.cli``: the ``tesserl`` command."""

import sys

from tesserl_trainer.cli import main

if __name__ == "__main__":
    sys.exit(main())
