"""The keys of a run: one class for each top-level block that belongs to no algorithm, and all blocks together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field, create_model

from tesserl_configs.base import Block, Count, Environments, Name, Real, Seed, Steps, Tags, TaskSeed, Text, Threads
from tesserl_configs.btr import BTR, SwitchOr
from tesserl_configs.collectors import Collectors, LocalCollectors
from tesserl_configs.environment import EnvironmentConfig
from tesserl_configs.errors import Problem
from tesserl_configs.grpo import GRPOConfig
from tesserl_configs.initial_weights import InitialWeights
from tesserl_configs.iqn import IQNConfig
from tesserl_configs.nn import NNConfig
from tesserl_configs.optimizer import Adam, Optimizer
from tesserl_configs.pairs import PairsConfig
from tesserl_configs.ppo import PPOConfig
from tesserl_configs.preferences import CPLConfig, DPOConfig
from tesserl_configs.replay import Replay, UniformReplay

AlgorithmName = Literal["iqn", "ppo", "grpo", "dpo", "cpl"]
"""Names of the algorithms of this project."""

# --- evaluation, checkpoints, logs -------------------------------------------------------------------------------


class VideoConfig(Block):
    """Films of the first episode of an evaluation, in `videos/` of the run (extra video of the trainer)."""

    interval: Steps = Field(description="Environment steps between two films, a multiple of evaluation.interval, >= 1.")


class EvaluationConfig(Block):
    """Greedy episodes in environments of their own, with the task's own rewards."""

    interval: Steps = Field(default=10_000, description="Environment steps between two evaluations, >= 1.")
    episodes: Count = Field(default=20, description="Episodes of each evaluation during training, >= 1.")
    final_episodes: Count = Field(default=100, description="Episodes after training, on unused seeds, >= 1.")
    seed: TaskSeed = Field(default=10_000, description="Seed of the first episode, the others follow; >= 0.")
    num_envs: Environments = Field(
        default=8, description="Environments that are stepped together, >= 1; CartPole plays all its episodes at once."
    )
    max_episode_steps: Steps = Field(
        default=27_000,
        description="An episode that takes more steps is cut there, >= 1 (Atari: 30 minutes, 108,000 frames).",
    )
    video: VideoConfig | None = Field(default=None, description="Films of evaluations during training; null: none.")
    process: bool = Field(
        default=False,
        description=(
            "Evaluate in a process of its own while training goes on; a result counts when the next evaluation is due."
        ),
    )


class _EarlyStopping(Block):
    """Stop training once evaluations are good enough; the final evaluation follows as ever."""

    evaluations: Count = Field(
        default=3, description="Evaluations in a row that must reach the return before training stops, >= 1."
    )

    @property
    def target(self) -> float:
        """Return the key ``return``, which is no name of an attribute."""
        return float(getattr(self, "return"))


if TYPE_CHECKING:
    EarlyStoppingConfig = _EarlyStopping
else:
    EarlyStoppingConfig = create_model(
        "EarlyStoppingConfig",
        __base__=_EarlyStopping,
        __doc__=_EarlyStopping.__doc__,
        __module__=__name__,
        **{
            "return": (
                Real,
                Field(description="Mean return that an evaluation must reach, in the task's own reward units."),
            )
        },
    )


class CheckpointConfig(Block):
    """Checkpoints of a run, from which it resumes."""

    interval: Steps = Field(default=10_000, description="Environment steps between two checkpoints, >= 1.")
    keep_last: Count = Field(default=2, description="Checkpoints kept, the newest ones, >= 1.")
    keep_best: bool = Field(default=True, description="Keep the checkpoint of the best evaluation as well.")


class WandbConfig(Block):
    """The run at Weights & Biases; logins, offline mode and servers are in W&B's own variables WANDB_*."""

    project: Text | None = Field(default=None, description="Project of the run; null: W&B's own setting.")
    entity: Text | None = Field(default=None, description="User or team of the project; null: W&B's own setting.")
    tags: Tags = Field(default=(), description="Tags of the run, at most 64 characters each.")


class MLflowConfig(Block):
    """The run at MLflow; the server or database is in MLflow's own variable MLFLOW_TRACKING_URI."""

    experiment: Text = Field(default="tesserl", description="Experiment of the run; made if there is none.")
    tags: Tags = Field(default=(), description="Tags of the run, at most 64 characters each; their values are empty.")


class TrackioConfig(Block):
    """The run in trackio; the directory is in trackio's own variable TRACKIO_DIR."""

    project: Text = Field(default="tesserl", description="Project of the run.")


class LoggingConfig(Block):
    """Metrics: metrics.csv is the record, every other logger is a view of it."""

    interval: Steps = Field(default=1_000, description="Environment steps between two lines of metrics, >= 1.")
    tensorboard: bool = Field(default=True, description="Write TensorBoard files beside metrics.csv.")
    wandb: SwitchOr[WandbConfig] = Field(
        default=False,
        description="Send metrics and configuration to Weights & Biases (extra wandb of the trainer): true or a block.",
    )
    mlflow: SwitchOr[MLflowConfig] = Field(
        default=False,
        description="Send metrics and configuration to MLflow (extra mlflow of the trainer): true or a block.",
    )
    trackio: SwitchOr[TrackioConfig] = Field(
        default=False,
        description="Send metrics and configuration to trackio (extra trackio of the trainer): true or a block.",
    )


# --- the whole ---------------------------------------------------------------------------------------------------


class RunKeys(Block):
    """The keys of a run; `tesserl_configs.schema.RunConfig` adds their rules."""

    extends: Text | None = Field(
        default=None,
        exclude=True,
        description=(
            "File whose keys this one starts from, relative to this file. Mappings are merged, lists and blocks of "
            "another kind are replaced; a resolved file has none."
        ),
    )
    name: Name | None = Field(
        default=None,
        description=(
            "Name of the run and of its directory: letters, digits and _ . + -; "
            "null: the file's path below configs/, '/' as '-'."
        ),
    )
    seed: Seed = Field(default=1, description="Seed of everything that is random, >= 0.")
    total_steps: Steps = Field(
        description=(
            "Environment steps: actions over all environments, frame skip not counted, >= 1; with pairs.source of kind "
            "offline gradient updates, here and in every other key that counts environment steps."
        )
    )
    environment: EnvironmentConfig = Field(description="The task and how many copies of it run.")
    collectors: Collectors = Field(
        default_factory=LocalCollectors, description="Processes that step the environments and act in them."
    )
    nn: NNConfig = Field(description="The network.")
    initial_weights: InitialWeights | None = Field(
        default=None,
        description=(
            "Run, or checkpoint of one, whose network this run starts from, such as `tesserl pretrain` writes it; "
            "{from: RUN, parts: [vision]} takes parts of it; null: none."
        ),
    )
    algorithm: AlgorithmName = Field(description="The algorithm; its options are in the block of that name.")
    iqn: IQNConfig = Field(default_factory=IQNConfig, description="Options of implicit quantile networks.")
    btr: BTR | None = Field(
        default=None,
        exclude=True,
        description=(
            "Switches of Beyond The Rainbow, of iqn alone: all, or a block. They fill other blocks where the file is "
            "silent, before anything is validated; a resolved file has none."
        ),
    )
    ppo: PPOConfig = Field(default_factory=PPOConfig, description="Options of proximal policy optimisation.")
    grpo: GRPOConfig = Field(default_factory=GRPOConfig, description="Options of group-relative policy optimisation.")
    dpo: DPOConfig = Field(default_factory=DPOConfig, description="Options of direct preference optimisation.")
    cpl: CPLConfig = Field(default_factory=CPLConfig, description="Options of contrastive preference learning.")
    optimizer: Optimizer = Field(default_factory=Adam, description="The optimiser; defaults depend on the algorithm.")
    replay: Replay = Field(default_factory=UniformReplay, description="The replay buffer, of iqn alone.")
    pairs: PairsConfig = Field(
        default_factory=PairsConfig, description="Source of the preferences, for dpo and cpl alone."
    )
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="Evaluation.")
    early_stopping: EarlyStoppingConfig | None = Field(
        default=None,
        description=(
            "Stop once so many evaluations in a row reach a mean return, before total_steps; null: never. "
            "Schedules still count to total_steps."
        ),
    )
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig, description="Checkpoints.")
    logging: LoggingConfig = Field(default_factory=LoggingConfig, description="Metrics.")
    device: str = Field(
        default="cpu",
        pattern=r"^(cpu|cuda(:(0|[1-9][0-9]?))?)$",
        description="Device of the networks: cpu, cuda or cuda:N.",
    )
    channels_last: bool | None = Field(
        default=None,
        description=(
            "Memory format of convolutions; true is faster for pictures of Atari's size, not for MinAtar's. null: true "
            "from 32 x 32 pixels on."
        ),
    )
    num_threads: Threads = Field(
        default=1, description="CPU threads of torch, >= 1; small networks are fastest on one."
    )
    float32_matmul: Literal["highest", "high"] = Field(
        default="highest",
        description=(
            "Precision of products of float32 matrices: highest, or high, which may round factors to TensorFloat32 on "
            "GPUs that have it. Not measured yet."
        ),
    )

    @property
    def options(self) -> Block:
        """Return the block of the chosen algorithm."""
        block: Block = getattr(self, self.algorithm)
        return block


Rule = Callable[[RunKeys], Iterator[Problem]]
"""A rule between keys: it yields the problems of a configuration."""
