"""Options shared by algorithms with a policy."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tesserl_configs.base import Block, Positive

Precision = Literal["float32", "bfloat16", "auto"]


class Distribution(Block):
    """Distribution of continuous actions."""

    kind: Literal["normal", "tanh_normal"] = Field(
        description=(
            "normal: independent normal distributions, with actions clipped to the bounds only for the task (37 "
            "details); tanh_normal: squashed into the bounds by tanh (Haarnoja et al. 2018, arXiv:1801.01290)."
        ),
    )
    initial_scale: Positive = Field(
        default=1.0,
        description="Standard deviation of each action dimension at the start, in action units, > 0 (CleanRL: 1).",
    )
    state_dependent_scale: bool = Field(
        default=False,
        description=(
            "Let the network predict the standard deviation; false: learn one parameter per action dimension (37 "
            "details)."
        ),
    )


DISTRIBUTION: Any = Field(
    default_factory=lambda: Distribution(kind="normal"),
    description="Distribution of continuous actions; discrete actions are always categorical.",
)
ORTHOGONAL_INIT: Any = Field(
    default=True,
    description=(
        "Initialise weights orthogonally and biases with 0: gain sqrt(2) in hidden layers, 0.01 for the policy, 1 "
        "for the value (37 details, core 2); false: torch's initialisation."
    ),
)
PRECISION: Any = Field(
    default="float32",
    description=(
        "Number format of the updates. bfloat16 runs them under torch.autocast, with weights and sums in float32; "
        "auto measures both formats at the start of a run and keeps the faster one."
    ),
)
COMPILE: Any = Field(
    default=False, description="Compile the loss with torch.compile; worthwhile for large networks only."
)
CUDA_GRAPH: Any = Field(
    default=False,
    description="Record an update once as a CUDA graph and replay it; for device cuda only. Not measured yet.",
)
MAX_GRAD_NORM = "Largest norm of the gradient, > 0; null: no clipping"
