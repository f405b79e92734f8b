"""Options that algorithms with a policy have in common."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tesserl_configs.base import Block, Positive

Precision = Literal["float32", "bfloat16", "auto"]


class Distribution(Block):
    """Distribution of continuous actions."""

    kind: Literal["normal", "tanh_normal"] = Field(
        description=(
            "normal: independent, actions are clipped to the bounds for the task alone (37 details); tanh_normal: "
            "squashed into the bounds of the action by tanh (Haarnoja et al. 2018, arXiv:1801.01290)."
        ),
    )
    initial_scale: Positive = Field(
        default=1.0,
        description="Standard deviation of each action dimension at the start, in action units, > 0 (CleanRL: 1).",
    )
    state_dependent_scale: bool = Field(
        default=False,
        description="The network gives the standard deviation; false: a parameter for each dimension (37 details).",
    )


DISTRIBUTION: Any = Field(
    default_factory=lambda: Distribution(kind="normal"),
    description="Distribution of continuous actions; discrete ones are categorical.",
)
ORTHOGONAL_INIT: Any = Field(
    default=True,
    description=(
        "Orthogonal weights and zero biases: gain sqrt(2) in hidden layers, 0.01 for the policy, 1 for the value "
        "(37 details, core 2); false: torch's own."
    ),
)
PRECISION: Any = Field(
    default="float32",
    description=(
        "Number format of the updates: bfloat16 runs them under torch.autocast; weights and sums stay float32. auto "
        "measures both at the start of a run, which keeps the faster one."
    ),
)
COMPILE: Any = Field(default=False, description="torch.compile of the loss; pays for large networks only.")
CUDA_GRAPH: Any = Field(
    default=False,
    description="Records an update once as a CUDA graph and replays it; for device cuda alone. Not measured yet.",
)
MAX_GRAD_NORM = "Norm to clip gradients to, > 0; null: no clipping"
