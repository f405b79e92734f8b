"""Group-relative policy optimisation for control, around any policy that returns log-probs, as a torchrl loss.

`GRPOLoss` is imported when it is first used: it needs torchrl, which a process that only acts does not import.
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
