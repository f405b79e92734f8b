"""Declare PQN to Tesserl's trainer: its block, defaults, rules and builder; this module does not import torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from tesserl_configs.algorithms import Algorithm
from tesserl_configs.base import Block, Count, Fraction, NonNegative, Positive
from tesserl_configs.errors import Problem
from tesserl_configs.policy import CUDA_GRAPH, MAX_GRAD_NORM, PRECISION, Precision
from tesserl_configs.schedules import Schedule, ScheduledFraction

if TYPE_CHECKING:
    from tesserl_configs.schema import RunConfig


def _default_epsilon() -> ScheduledFraction:
    return Schedule(kind="linear", knots=((0, 1.0), (100_000, 0.05)))


class PQNConfig(Block):
    """Options of parallelised Q-networks.

    Defaults are those of the paper's Atari experiments unless a key names another source.
    """

    num_steps: Count = Field(
        default=32, description="Number of steps of each environment in a rollout, >= 1 (authors' code: 32)."
    )
    num_epochs: Count = Field(
        default=2, description="Number of passes over each rollout, >= 1 (authors' code: 2 to 4)."
    )
    num_minibatches: Count = Field(
        default=32,
        description=(
            "Number of parts that a rollout is split into, with one gradient update each, >= 1; a divisor of num_envs "
            "* num_steps (authors' code, with 128 environments: 32)."
        ),
    )
    discount: Fraction = Field(default=0.99, description="Discount of one environment step, in [0, 1].")
    q_lambda: Fraction = Field(
        default=0.65,
        description="Lambda of Q(lambda), in [0, 1]. 0: one-step targets; 1: sums of the rewards to the rollout's end.",
    )
    epsilon: ScheduledFraction = Field(
        default_factory=_default_epsilon,
        description=(
            "Probability of a random action, in [0, 1]; a number or a schedule (authors' code: linear, from 1 to 0.05 "
            "on MinAtar and 0.001 on Atari, in the first tenth of a run)."
        ),
    )
    evaluation_epsilon: Fraction = Field(
        default=0.0, description="Probability of a random action in evaluations and eval, in [0, 1]; 0: greedy."
    )
    num_quantiles: Count | None = Field(
        default=None,
        description=(
            "Number of quantiles that represent the return of each action, >= 1 (QR-DQN, arXiv:1710.10044: 200); null: "
            "its mean alone (paper)."
        ),
    )
    kappa: NonNegative = Field(
        default=1.0,
        description="Threshold of the quantile Huber loss, in reward units, >= 0; 0: pinball loss (QR-DQN: 1).",
    )
    require_layer_norm: bool = Field(
        default=True,
        description=(
            "Refuse encoders and heads whose hidden layers have no LayerNorm: there is no target network, and without "
            "LayerNorm values may diverge (paper, section 3)."
        ),
    )
    max_grad_norm: Positive | None = Field(default=10.0, description=f"{MAX_GRAD_NORM} (authors' code: 10).")
    precision: Precision = PRECISION
    compile: bool = Field(
        default=False, description="Compile the loss with torch.compile; worthwhile for large networks only."
    )
    cuda_graph: bool = CUDA_GRAPH


def options_of(config: RunConfig) -> PQNConfig:
    """Return the block ``pqn:``.

    Raises:
        TypeError: the run has another algorithm.
    """
    if not isinstance(config.options, PQNConfig):
        raise TypeError(f"expected a run of pqn, got {config.algorithm}")
    return config.options


def rollouts_divide_into_minibatches(config: RunConfig) -> Iterator[Problem]:
    """Check that a rollout divides into equal minibatches, and that the run is at least one rollout long."""
    options = options_of(config)
    size = config.environment.num_envs * options.num_steps
    if size % options.num_minibatches:
        yield Problem(
            "pqn.num_minibatches",
            f"expected a divisor of environment.num_envs * pqn.num_steps = {size}, got {options.num_minibatches}",
        )
    if size > config.total_steps:
        yield Problem(
            "total_steps", f"expected at least environment.num_envs * pqn.num_steps = {size}, got {config.total_steps}"
        )


def layers_have_a_norm(config: RunConfig) -> Iterator[Problem]:
    """Check that encoders and heads with hidden layers have LayerNorm, unless the file allows them without."""
    if not options_of(config).require_layer_norm:
        return
    nn, without = config.nn, []
    if nn.vision.kind == "cnn" and not nn.vision.layer_norm:
        without.append("nn.vision.layer_norm")
    if nn.vector.kind == "mlp" and nn.vector.hidden_sizes and not nn.vector.layer_norm:
        without.append("nn.vector.layer_norm")
    if nn.heads.hidden_sizes and not nn.heads.layer_norm:
        without.append("nn.heads.layer_norm")
    for key in without:
        yield Problem(
            key, "pqn has no target network and relies on LayerNorm; set it to true, or pqn.require_layer_norm to false"
        )


def epsilon_alone_explores(config: RunConfig) -> Iterator[Problem]:
    """Refuse noisy layers, because the values recorded while acting would contain the noise."""
    if config.nn.heads.noisy:
        yield Problem("nn.heads.noisy", "pqn explores by pqn.epsilon; set it to false, or use iqn")


def kappa_has_quantiles(config: RunConfig) -> Iterator[Problem]:
    """Refuse ``kappa`` without quantiles: the error of values is squared and has no threshold."""
    options = options_of(config)
    if options.num_quantiles is None and options.kappa != 1.0:
        yield Problem("pqn.kappa", "belongs to pqn.num_quantiles, which is null; remove the key or set a number")


ALGORITHM = Algorithm(
    name="pqn",
    options=PQNConfig,
    title="Options of parallelised Q-networks.",
    builder="tesserl_pqn.build",
    network="value",
    optimizer={"learning_rate": 2.5e-4, "eps": 1e-8},
    optimizer_kind="radam",
    memory=("pqn.num_steps", "pqn.num_minibatches"),
    start={
        "nn": {
            "vision": {"layer_norm": True},
            "vector": {"layer_norm": True},
            "heads": {"hidden_sizes": [64], "layer_norm": True},
        },
        "pqn": {
            "num_steps": 32,
            "num_epochs": 4,
            "num_minibatches": 4,
            "discount": 0.99,
            "q_lambda": 0.9,
            "epsilon": {"kind": "linear", "knots": [[0, 1.0], [10_000, 0.05]]},
        },
        "optimizer": {"learning_rate": 1e-3},
    },
    rules=(
        rollouts_divide_into_minibatches,
        layers_have_a_norm,
        epsilon_alone_explores,
        kappa_has_quantiles,
    ),
)
