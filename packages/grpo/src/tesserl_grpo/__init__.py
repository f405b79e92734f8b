"""Group-relative policy optimisation for control: a torchrl loss for any policy that returns log-probs.

`GRPOLoss` is imported on first use, so that processes that only act do not import torchrl.
"""

from typing import TYPE_CHECKING, Any

from tesserl_grpo.__about__ import __version__
from tesserl_grpo.advantages import group_advantages, group_advantages_to_go, linear_baseline
from tesserl_grpo.functional import group_policy_loss
from tesserl_grpo.groups import ScoredGroups, check_shared_start, flatten_steps, pad_trajectories, score_groups
from tesserl_grpo.kl import kl_estimate
from tesserl_grpo.reduction import step_weights

if TYPE_CHECKING:
    from tesserl_grpo.loss import GRPOLoss

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
    "linear_baseline",
    "pad_trajectories",
    "score_groups",
    "step_weights",
]


def __getattr__(name: str) -> Any:
    if name != "GRPOLoss":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tesserl_grpo.loss import GRPOLoss

    return GRPOLoss
