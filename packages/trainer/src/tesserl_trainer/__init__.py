"""Train deep-RL agents from one YAML file: the tesserl command, its loops, checkpoints and evaluation.

The public names are imported when they are first used, so that ``tesserl --help`` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tesserl_trainer.__about__ import __version__

if TYPE_CHECKING:
    from tesserl_trainer.algorithms.task import build_network
    from tesserl_trainer.cli import main
    from tesserl_trainer.running.evaluate import evaluate
    from tesserl_trainer.running.train import train

__all__ = ["__version__", "build_network", "evaluate", "main", "train"]

_HOMES = {
    "build_network": "tesserl_trainer.algorithms.task",
    "evaluate": "tesserl_trainer.running.evaluate",
    "main": "tesserl_trainer.cli",
    "train": "tesserl_trainer.running.train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
