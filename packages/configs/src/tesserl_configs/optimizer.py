"""``optimizer:``, the optimiser of every algorithm."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tesserl_configs.base import Block, Epsilon, FractionBelowOne, NonNegative
from tesserl_configs.schedules import ScheduledRate


class Adam(Block):
    """Adam and its variants."""

    kind: Literal["adam", "adamw", "radam"] = Field(
        default="adam",
        description=(
            "adam: weight decay is added to the gradient (Kingma & Ba 2015); adamw: decoupled weight decay (Loshchilov "
            "& Hutter 2019); radam: rectified, decoupled as in the authors' code (Liu et al. 2020)."
        ),
    )
    learning_rate: ScheduledRate = Field(
        default=5e-5,
        description="Step size, > 0; a number or a schedule (IQN paper: 5e-5 at batch 32; CleanRL's PPO: 2.5e-4).",
    )
    eps: Epsilon = Field(
        default=3.125e-4,
        description="Term added to the root of the second moment, > 0 (IQN paper: 0.01 / 32; CleanRL's PPO: 1e-5).",
    )
    betas: tuple[FractionBelowOne, FractionBelowOne] = Field(
        default=(0.9, 0.999),
        description="Decay rates of the first and the second moment, in [0, 1) (torch's defaults).",
    )
    weight_decay: NonNegative = Field(default=0.0, description="Coefficient of weight decay, >= 0.")


class SGD(Block):
    """Stochastic gradient descent."""

    kind: Literal["sgd"] = "sgd"
    learning_rate: ScheduledRate = Field(default=1e-2, description="Step size, > 0; a number or a schedule.")
    momentum: FractionBelowOne = Field(default=0.0, description="Momentum, in [0, 1).")
    weight_decay: NonNegative = Field(default=0.0, description="Coefficient of weight decay, >= 0.")


Optimizer = Annotated[Adam | SGD, Field(discriminator="kind")]
