"""Group-relative policy optimisation for control, around any policy that yields log-probs, as a torchrl loss."""

from tesserl_grpo.__about__ import __version__
from tesserl_grpo.advantages import group_advantages, group_advantages_to_go
from tesserl_grpo.functional import group_policy_loss
from tesserl_grpo.groups import ScoredGroups, check_shared_start, flatten_steps, pad_trajectories, score_groups
from tesserl_grpo.kl import kl_estimate
from tesserl_grpo.loss import GRPOLoss
from tesserl_grpo.reduction import step_weights

__all__ = [
    "GRPOLoss",
    "ScoredGroups",
    "__version__",
    "check_shared_start",
    "flatten_steps",
    "group_advantages",
    "group_advantages_to_go",
    "group_policy_loss",
    "kl_estimate",
    "pad_trajectories",
    "score_groups",
    "step_weights",
]
