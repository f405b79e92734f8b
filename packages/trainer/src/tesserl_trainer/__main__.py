"""``python -m tesserl_trainer``: the ``tesserl`` command, in the form that ``torchrun -m`` starts."""

import sys

from tesserl_trainer.cli import main

if __name__ == "__main__":
    sys.exit(main())
