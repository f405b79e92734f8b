"""Run the ``tesserl`` command by ``python -m tesserl_trainer`` or ``torchrun -m tesserl_trainer``."""

import sys

from tesserl_trainer.cli import main

if __name__ == "__main__":
    sys.exit(main())
