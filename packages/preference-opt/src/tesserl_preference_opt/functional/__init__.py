"""The formulas of preference optimisation: tensors in, tensors out.

Shapes: ``P`` pairs, ``T`` steps of a padded segment, ``K`` segments that are ranked together. ``log_probs`` are those
of the actions taken, ``[P, T]``; a segment's is their sum, ``[P]``. A log-ratio is the policy's minus the reference's.

In a Markov decision process these losses are approximations on whole segments: the dynamics cancel in log-ratios, but
luck counts as a merit of the actions. Names and numbers of preference losses are those of TRL's trainers.
"""

from tesserl_preference_opt.functional.contrastive import cpl_advantage, cpl_advantage_loss, cpl_loss, cpl_ranked_loss
from tesserl_preference_opt.functional.pairwise import f_divergence_score, preference_loss
from tesserl_preference_opt.functional.steps import (
    bc_loss,
    deterministic_log_probs,
    pair_weights,
    sum_log_probs,
    value_loss,
)
from tesserl_preference_opt.functional.unpaired import bco_loss, kto_loss

__all__ = [
    "bc_loss",
    "bco_loss",
    "cpl_advantage",
    "cpl_advantage_loss",
    "cpl_loss",
    "cpl_ranked_loss",
    "deterministic_log_probs",
    "f_divergence_score",
    "kto_loss",
    "pair_weights",
    "preference_loss",
    "sum_log_probs",
    "value_loss",
]
