"""The keys of a run: classes of the top-level blocks that every algorithm reads, and the class of a whole run."""

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
    """Videos of the first episode of an evaluation, in `videos/` of the run (extra video of the trainer)."""

    interval: Steps = Field(
        description="Number of environment steps between two videos, >= 1; a multiple of evaluation.interval."
    )


class EvaluationConfig(Block):
    """Greedy episodes in separate environments, with the task's own rewards."""

    interval: Steps = Field(default=10_000, description="Number of environment steps between two evaluations, >= 1.")
    episodes: Count = Field(default=20, description="Number of episodes of each evaluation during training, >= 1.")
    final_episodes: Count = Field(
        default=100, description="Number of episodes after training, on seeds not used before, >= 1."
    )
    seed: TaskSeed = Field(
        default=10_000, description="Seed of the first episode, >= 0; the other episodes have the seeds that follow."
    )
    num_envs: Environments = Field(
        default=8,
        description="Number of environments stepped together, >= 1; CartPole always steps all its episodes together.",
    )
    max_episode_steps: Steps = Field(
        default=27_000,
        description=(
            "Number of steps after which an evaluation episode is cut off, >= 1 (Atari: 30 minutes, 108,000 frames)."
        ),
    )
    video: VideoConfig | None = Field(default=None, description="Videos of evaluations during training; null: none.")
    process: bool = Field(
        default=False,
        description=(
            "Evaluate in a separate process while training goes on; a result takes effect when the next evaluation is "
            "due."
        ),
    )


class _EarlyStopping(Block):
    """Stop training once evaluations are good enough; the final evaluation still follows."""

    evaluations: Count = Field(
        default=3, description="Number of evaluations in a row that must reach the return before training stops, >= 1."
    )

    @property
    def target(self) -> float:
        """Return the key ``return``, a keyword that cannot name an attribute."""
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

    interval: Steps = Field(default=10_000, description="Number of environment steps between two checkpoints, >= 1.")
    keep_last: Count = Field(default=2, description="Number of the newest checkpoints that are kept, >= 1.")
    keep_best: bool = Field(default=True, description="Keep the checkpoint of the best evaluation, too.")


class WandbConfig(Block):
    """Logging to Weights & Biases; set logins, offline mode and servers by W&B's own variables WANDB_*."""

    project: Text | None = Field(default=None, description="Project of the run; null: W&B's own setting.")
    entity: Text | None = Field(default=None, description="User or team of the project; null: W&B's own setting.")
    tags: Tags = Field(default=(), description="Tags of the run, at most 64 characters each.")


class MLflowConfig(Block):
    """Logging to MLflow; set the server or database by MLflow's own variable MLFLOW_TRACKING_URI."""

    experiment: Text = Field(
        default="tesserl", description="Experiment of the run; it is created if it does not exist."
    )
    tags: Tags = Field(default=(), description="Tags of the run, at most 64 characters each; their values are empty.")


class TrackioConfig(Block):
    """Logging to trackio; set the directory by trackio's own variable TRACKIO_DIR."""

    project: Text = Field(default="tesserl", description="Project of the run.")


class LoggingConfig(Block):
    """Metrics of a run; metrics.csv is the complete record, and the other loggers show the same numbers."""

    interval: Steps = Field(
        default=1_000, description="Number of environment steps between two lines of metrics, >= 1."
    )
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
            "File whose keys this file starts from, relative to this file. Mappings are merged; lists, and blocks of "
            "another kind, are replaced."
        ),
    )
    name: Name | None = Field(
        default=None,
        description=(
            "Name of the run and of its directory, made of letters, digits and _ . + -; null: the file's path below "
            "configs/, with '-' for '/'."
        ),
    )
    seed: Seed = Field(default=1, description="Seed of all random numbers of the run, >= 0.")
    total_steps: Steps = Field(
        description=(
            "Number of environment steps of the run, >= 1: actions summed over all environments, frame skip not "
            "counted. With pairs.source of kind offline, all keys in environment steps count gradient updates."
        )
    )
    environment: EnvironmentConfig = Field(description="Task, and the number of its copies.")
    collectors: Collectors = Field(
        default_factory=LocalCollectors, description="Processes that step the environments and act in them."
    )
    nn: NNConfig = Field(description="Network.")
    initial_weights: InitialWeights | None = Field(
        default=None,
        description=(
            "Run, or checkpoint, to load the initial network from, such as a run of `tesserl pretrain`; null: none. "
            "{from: RUN, parts: [vision]} loads only the parts named."
        ),
    )
    algorithm: AlgorithmName = Field(description="Name of the algorithm; the block of the same name holds its options.")
    iqn: IQNConfig = Field(default_factory=IQNConfig, description="Options of implicit quantile networks.")
    btr: BTR | None = Field(
        default=None,
        exclude=True,
        description=(
            "Switches of Beyond The Rainbow, for iqn only: all, or a block. They fill in keys that the file does not "
            "set, before validation, and are not part of a resolved configuration."
        ),
    )
    ppo: PPOConfig = Field(default_factory=PPOConfig, description="Options of proximal policy optimisation.")
    grpo: GRPOConfig = Field(default_factory=GRPOConfig, description="Options of group-relative policy optimisation.")
    dpo: DPOConfig = Field(default_factory=DPOConfig, description="Options of direct preference optimisation.")
    cpl: CPLConfig = Field(default_factory=CPLConfig, description="Options of contrastive preference learning.")
    optimizer: Optimizer = Field(
        default_factory=Adam, description="Optimiser of the network; its defaults depend on the algorithm."
    )
    replay: Replay = Field(default_factory=UniformReplay, description="Replay buffer, for iqn only.")
    pairs: PairsConfig = Field(
        default_factory=PairsConfig, description="Source of the preferences, for dpo and cpl only."
    )
    evaluation: EvaluationConfig = Field(
        default_factory=EvaluationConfig, description="Evaluations during and after training."
    )
    early_stopping: EarlyStoppingConfig | None = Field(
        default=None,
        description=(
            "Stop before total_steps once some evaluations in a row reach a mean return; null: never. Schedules are "
            "not shortened."
        ),
    )
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig, description="Checkpoints of the run.")
    logging: LoggingConfig = Field(
        default_factory=LoggingConfig, description="Metrics and the loggers that receive them."
    )
    device: str = Field(
        default="cpu",
        pattern=r"^(cpu|cuda(:(0|[1-9][0-9]?))?)$",
        description="Device of the networks: cpu, cuda or cuda:N.",
    )
    channels_last: bool | None = Field(
        default=None,
        description=(
            "Use the channels-last memory format in convolutions; faster for images of Atari's size, not for "
            "MinAtar's. null: true from 32 x 32 pixels on."
        ),
    )
    num_threads: Threads = Field(
        default=1, description="Number of CPU threads of torch, >= 1; small networks are fastest with one."
    )
    float32_matmul: Literal["highest", "high"] = Field(
        default="highest",
        description=(
            "Precision of products of float32 matrices: highest, or high, which may round factors to TensorFloat32 on "
            "GPUs that support it. Not measured yet."
        ),
    )

    @property
    def options(self) -> Block:
        """Return the block of the chosen algorithm."""
        block: Block = getattr(self, self.algorithm)
        return block


Rule = Callable[[RunKeys], Iterator[Problem]]
"""A rule between keys: it yields the problems of a configuration."""
