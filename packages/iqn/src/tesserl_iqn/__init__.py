"""Implicit Quantile Networks with Munchausen targets, as PyTorch modules and a torchrl loss.

The loss and its updates are imported on first use, because they need torchrl, which processes that only act do not
need.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tesserl_iqn.__about__ import __version__
from tesserl_iqn.fractions import distort_taus
from tesserl_iqn.functional import cosine_features, munchausen_target, quantile_td_target
from tesserl_iqn.network import CosineEmbedding, QuantileNetwork
from tesserl_iqn.policy import QuantilePolicy
from tesserl_iqn.quantile_loss import quantile_huber_loss
from tesserl_iqn.transitions import crop_pixels, end_at_horizon, prepare_batches, sample_clock, set_clock

if TYPE_CHECKING:
    from tesserl_iqn.loss import IQNLoss
    from tesserl_iqn.updates import PeriodicReset, TargetUpdater, shrink_and_perturb

__all__ = [
    "CosineEmbedding",
    "IQNLoss",
    "PeriodicReset",
    "QuantileNetwork",
    "QuantilePolicy",
    "TargetUpdater",
    "__version__",
    "cosine_features",
    "crop_pixels",
    "distort_taus",
    "end_at_horizon",
    "munchausen_target",
    "prepare_batches",
    "quantile_huber_loss",
    "quantile_td_target",
    "sample_clock",
    "set_clock",
    "shrink_and_perturb",
]

_HOMES = {"IQNLoss": "loss", "PeriodicReset": "updates", "TargetUpdater": "updates", "shrink_and_perturb": "updates"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
