"""Declare REINFORCE to Tesserl: its block, its defaults, its rules and the module that builds it. No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from tesserl_configs.algorithms import Algorithm
from tesserl_configs.base import Block, Count, Fraction, NonNegative, Positive
from tesserl_configs.errors import Problem

if TYPE_CHECKING:
    from tesserl_configs import RunConfig


class ReinforceConfig(Block):
    """Options of REINFORCE."""

    num_steps: Count = Field(default=128, description="Steps of each environment between two updates, >= 1.")
    discount: Fraction = Field(default=0.99, description="Discount of one environment step, in [0, 1].")
    value_coef: NonNegative = Field(default=0.5, description="Weight of the baseline's squared error, >= 0.")
    entropy_coef: NonNegative = Field(default=0.01, description="Weight of the entropy bonus, >= 0.")
    max_grad_norm: Positive | None = Field(
        default=0.5, description="Norm to clip gradients to, > 0; null: no clipping."
    )


def a_rollout_fits_into_the_run(config: RunConfig) -> Iterator[Problem]:
    """Refuse a run that is shorter than one rollout."""
    options = config.options
    if isinstance(options, ReinforceConfig):
        steps = options.num_steps * config.environment.num_envs
        if steps > config.total_steps:
            yield Problem(
                "reinforce.num_steps",
                f"expected environment.num_envs * reinforce.num_steps of at most total_steps = {config.total_steps}, "
                f"got {steps}; take fewer steps",
            )


ALGORITHM = Algorithm(
    name="reinforce",
    options=ReinforceConfig,
    title="Options of REINFORCE with a baseline.",
    builder="tesserl_reinforce.build",
    optimizer={"learning_rate": 2.5e-3, "eps": 1e-5},
    rules=(a_rollout_fits_into_the_run,),
)
