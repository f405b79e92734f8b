"""Train one run with several processes (ranks): joining, collective operations, parts of batches, checkpoints.

Public names are imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tesserl_ranks.__about__ import __version__

if TYPE_CHECKING:
    from tesserl_ranks.failures import RankError
    from tesserl_ranks.group import ALONE, Ranks
    from tesserl_ranks.joining import Launch, joined, launched
    from tesserl_ranks.shares import count_minibatches, minibatches, shared_minibatches, slices
    from tesserl_ranks.states import state_of_all, state_of_rank
    from tesserl_ranks.store import PatientStore

__all__ = [
    "ALONE",
    "Launch",
    "PatientStore",
    "RankError",
    "Ranks",
    "__version__",
    "count_minibatches",
    "joined",
    "launched",
    "minibatches",
    "shared_minibatches",
    "slices",
    "state_of_all",
    "state_of_rank",
]

_HOMES = {
    "ALONE": "group",
    "Launch": "joining",
    "PatientStore": "store",
    "RankError": "failures",
    "Ranks": "group",
    "count_minibatches": "shares",
    "joined": "joining",
    "launched": "joining",
    "minibatches": "shares",
    "shared_minibatches": "shares",
    "slices": "shares",
    "state_of_all": "states",
    "state_of_rank": "states",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
