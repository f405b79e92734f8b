"""The configuration of a run: one class for each top-level block of the YAML file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tesserl_configs import rules
from tesserl_configs.base import Block, Count, Fraction, FractionBelowOne, NonNegative, NonNegativeInt, Positive
from tesserl_configs.environment import EnvironmentConfig
from tesserl_configs.errors import ConfigError
from tesserl_configs.iqn import IQNConfig
from tesserl_configs.nn import NNConfig
from tesserl_configs.schedules import ScheduledFraction, ScheduledRate

# --- optimizer ---------------------------------------------------------------------------------------------------


class _AdamOptions(Block):
    learning_rate: ScheduledRate = Field(
        default=5e-5, description="Step size, > 0; a number or a schedule (IQN paper: 5e-5 at batch 32)."
    )
    eps: Positive = Field(
        default=3.125e-4, description="Added to the root of the second moment, > 0 (IQN paper: 0.01 / 32)."
    )
    betas: tuple[FractionBelowOne, FractionBelowOne] = Field(
        default=(0.9, 0.999), description="Decay of the first and the second moment, in [0, 1) (torch's defaults)."
    )
    weight_decay: NonNegative = Field(default=0.0, description="Coefficient of weight decay, >= 0.")


class Adam(_AdamOptions):
    """Adam (Kingma & Ba 2015); weight decay is added to the gradient."""

    kind: Literal["adam"] = "adam"


class AdamW(_AdamOptions):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    kind: Literal["adamw"] = "adamw"


class RAdam(_AdamOptions):
    """Rectified Adam (Liu et al. 2020); weight decay is decoupled, as in the authors' code."""

    kind: Literal["radam"] = "radam"


class SGD(Block):
    """Stochastic gradient descent."""

    kind: Literal["sgd"] = "sgd"
    learning_rate: ScheduledRate = Field(default=1e-2, description="Step size, > 0; a number or a schedule.")
    momentum: FractionBelowOne = Field(default=0.0, description="Momentum, in [0, 1).")
    weight_decay: NonNegative = Field(default=0.0, description="Coefficient of weight decay, >= 0.")


Optimizer = Annotated[Adam | AdamW | RAdam | SGD, Field(discriminator="kind")]

# --- replay ------------------------------------------------------------------------------------------------------


class _ReplayOptions(Block):
    capacity: Count = Field(
        default=100_000, description="Transitions kept, the oldest are overwritten, >= 1 (IQN paper: 1,000,000)."
    )
    warmup_steps: Count = Field(
        default=1_000, description="Environment steps before the first gradient update, >= 1 (IQN paper: 50,000)."
    )
    storage: Literal["memory", "memmap"] = Field(default="memory", description="Keep transitions in memory or on disk.")


class UniformReplay(_ReplayOptions):
    """Transitions are drawn uniformly."""

    kind: Literal["uniform"] = "uniform"


class PrioritizedReplay(_ReplayOptions):
    """Transitions are drawn by their TD error (Schaul et al. 2016, arXiv:1511.05952)."""

    kind: Literal["prioritized"] = "prioritized"
    alpha: Fraction = Field(default=0.5, description="Exponent of priorities, in [0, 1]; 0: uniform (Rainbow: 0.5).")
    beta: ScheduledFraction = Field(
        default=0.4,
        description="Exponent of the importance weights, in [0, 1]; a number or a schedule (paper: 0.4 rising to 1).",
    )
    eps: Positive = Field(default=1e-6, description="Added to every TD error, in reward units, > 0.")


Replay = Annotated[UniformReplay | PrioritizedReplay, Field(discriminator="kind")]

# --- evaluation, checkpoints, logs -------------------------------------------------------------------------------


class EvaluationConfig(Block):
    """Greedy episodes in environments of their own, with the task's own rewards."""

    interval: Count = Field(default=10_000, description="Environment steps between two evaluations, >= 1.")
    episodes: Count = Field(default=20, description="Episodes of each evaluation during training, >= 1.")
    final_episodes: Count = Field(default=100, description="Episodes after training, on unused seeds, >= 1.")
    seed: NonNegativeInt = Field(default=10_000, description="Seed of the first episode, the others follow; >= 0.")
    num_envs: Count = Field(default=8, description="Environments that are stepped together, >= 1.")
    max_episode_steps: Count = Field(
        default=27_000,
        description="An episode that takes more steps is cut there, >= 1 (Atari: 30 minutes, 108,000 frames).",
    )


class CheckpointConfig(Block):
    """Everything that a run is, on disk."""

    interval: Count = Field(default=10_000, description="Environment steps between two checkpoints, >= 1.")
    keep_last: Count = Field(default=2, description="Checkpoints kept, the newest ones, >= 1.")
    keep_best: bool = Field(default=True, description="Keep the checkpoint of the best evaluation as well.")


class LoggingConfig(Block):
    """Metrics."""

    interval: Count = Field(default=1_000, description="Environment steps between two lines of metrics, >= 1.")
    tensorboard: bool = Field(default=True, description="Write TensorBoard files beside metrics.csv.")
    wandb: bool = Field(default=False, description="Send metrics to Weights & Biases (extra wandb of the trainer).")


# --- the whole ---------------------------------------------------------------------------------------------------


class RunConfig(Block):
    """One run."""

    name: str | None = Field(
        default=None,
        pattern=r"^\w[\w.+-]*$",
        description=(
            "Name of the run and of its directory: letters, digits and _ . + -; "
            "null: the file's path below configs/, '/' as '-'."
        ),
    )
    seed: NonNegativeInt = Field(default=1, description="Seed of everything that is random, >= 0.")
    total_steps: Count = Field(
        description="Environment steps: actions over all environments, frame skip not counted, >= 1."
    )
    environment: EnvironmentConfig = Field(description="The task and how many copies of it run.")
    nn: NNConfig = Field(description="The network.")
    algorithm: Literal["iqn"] = Field(description="The algorithm; its options are in the block of that name.")
    iqn: IQNConfig = Field(default_factory=IQNConfig, description="Options of implicit quantile networks.")
    optimizer: Optimizer = Field(default_factory=Adam, description="The optimiser.")
    replay: Replay = Field(default_factory=UniformReplay, description="The replay buffer.")
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="Evaluation.")
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig, description="Checkpoints.")
    logging: LoggingConfig = Field(default_factory=LoggingConfig, description="Metrics.")
    device: str = Field(
        default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="Where the networks are: cpu, cuda or cuda:N."
    )
    num_threads: Count = Field(default=1, description="CPU threads of torch, >= 1; small networks are fastest on one.")

    @model_validator(mode="after")
    def _check_rules(self) -> RunConfig:
        problems = list(rules.check(self))
        if problems:
            raise ConfigError(*problems)
        return self
