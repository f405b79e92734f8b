"""Preference optimisation for control: learn a policy from pairs of trajectory segments, with torchrl losses."""

from tesserl_preference_opt.__about__ import __version__
from tesserl_preference_opt.cpl import BehaviorCloningLoss, CPLLoss
from tesserl_preference_opt.functional import (
    bc_loss,
    cpl_advantage,
    cpl_loss,
    cpl_ranked_loss,
    kto_loss,
    preference_loss,
    sum_log_probs,
)
from tesserl_preference_opt.kto import KTOLoss
from tesserl_preference_opt.loss import PreferenceLoss
from tesserl_preference_opt.metrics import evaluate_pairs
from tesserl_preference_opt.reference_log_probs import precompute_reference_log_probs

__all__ = [
    "BehaviorCloningLoss",
    "CPLLoss",
    "KTOLoss",
    "PreferenceLoss",
    "__version__",
    "bc_loss",
    "cpl_advantage",
    "cpl_loss",
    "cpl_ranked_loss",
    "evaluate_pairs",
    "kto_loss",
    "precompute_reference_log_probs",
    "preference_loss",
    "sum_log_probs",
]
