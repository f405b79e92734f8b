"""Group-relative policy optimisation for control, around any policy that yields log-probs, as a torchrl loss."""

from tesserl_grpo.__about__ import __version__
from tesserl_grpo.advantages import group_advantages, group_advantages_to_go, returns_to_go
from tesserl_grpo.functional import group_policy_loss, masked_mean, step_weights
from tesserl_grpo.groups import ScoredGroups, check_shared_start, flatten_steps, pad_trajectories, score_groups
from tesserl_grpo.kl import categorical_kl, gaussian_kl, kl_estimate
from tesserl_grpo.loss import GRPOLoss
from tesserl_grpo.reference import ReferencePolicy

__all__ = [
    "GRPOLoss",
    "ReferencePolicy",
    "ScoredGroups",
    "__version__",
    "categorical_kl",
    "check_shared_start",
    "flatten_steps",
    "gaussian_kl",
    "group_advantages",
    "group_advantages_to_go",
    "group_policy_loss",
    "kl_estimate",
    "masked_mean",
    "pad_trajectories",
    "returns_to_go",
    "score_groups",
    "step_weights",
]
