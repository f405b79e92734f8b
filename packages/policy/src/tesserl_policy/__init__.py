"""Building blocks for policy losses: batch entries, actors, divergences, clipping, reductions, reference policies.

`DirectLossModule` is imported on first use, so that a process that only acts does not import torchrl.
"""

from typing import TYPE_CHECKING, Any

from tesserl_policy.__about__ import __version__
from tesserl_policy.actors import action_entropy, action_log_probs, check_actor, log_mean_density, policy_distribution
from tesserl_policy.clipping import clipped_ratio, log_ratio_bounds
from tesserl_policy.divergences import categorical_kl, gaussian_kl
from tesserl_policy.entries import Entries, get_entry
from tesserl_policy.masking import mask_actions
from tesserl_policy.precision import at_least_float32
from tesserl_policy.reductions import masked_mean, returns_to_go
from tesserl_policy.reference import ReferencePolicy

if TYPE_CHECKING:
    from tesserl_policy.loss_module import DirectLossModule

__all__ = [
    "DirectLossModule",
    "Entries",
    "ReferencePolicy",
    "__version__",
    "action_entropy",
    "action_log_probs",
    "at_least_float32",
    "categorical_kl",
    "check_actor",
    "clipped_ratio",
    "gaussian_kl",
    "get_entry",
    "log_mean_density",
    "log_ratio_bounds",
    "mask_actions",
    "masked_mean",
    "policy_distribution",
    "returns_to_go",
]


def __getattr__(name: str) -> Any:
    if name != "DirectLossModule":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tesserl_policy.loss_module import DirectLossModule

    return DirectLossModule
