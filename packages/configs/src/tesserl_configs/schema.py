"""The configuration of a run: one class for each top-level block of the YAML file."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    create_model,
    field_validator,
    model_serializer,
    model_validator,
)

from tesserl_configs import rules
from tesserl_configs.algorithms import BUILT_IN, SHARED, declared, find, installed, owners_of
from tesserl_configs.base import Block, Count, Environments, Name, Real, Seed, Steps, TaskSeed, Text, Threads
from tesserl_configs.btr import BTR
from tesserl_configs.btr_resolution import resolve
from tesserl_configs.defaults import with_defaults
from tesserl_configs.environment import EnvironmentConfig
from tesserl_configs.errors import ConfigError
from tesserl_configs.grpo import GRPOConfig
from tesserl_configs.iqn import IQNConfig
from tesserl_configs.nn import NNConfig
from tesserl_configs.optimizer import Adam, Optimizer
from tesserl_configs.pairs import PairsConfig
from tesserl_configs.ppo import PPOConfig
from tesserl_configs.preferences import CPLConfig, DPOConfig
from tesserl_configs.replay import Replay, UniformReplay

AlgorithmName = Literal["iqn", "ppo", "grpo", "dpo", "cpl"]
"""Names of the algorithms of this project."""

OWNED = (*BUILT_IN, *SHARED)
"""Blocks that belong to some algorithms only; no other one's file may hold them."""

# --- evaluation, checkpoints, logs -------------------------------------------------------------------------------


class EvaluationConfig(Block):
    """Greedy episodes in environments of their own, with the task's own rewards."""

    interval: Steps = Field(default=10_000, description="Environment steps between two evaluations, >= 1.")
    episodes: Count = Field(default=20, description="Episodes of each evaluation during training, >= 1.")
    final_episodes: Count = Field(default=100, description="Episodes after training, on unused seeds, >= 1.")
    seed: TaskSeed = Field(default=10_000, description="Seed of the first episode, the others follow; >= 0.")
    num_envs: Environments = Field(default=8, description="Environments that are stepped together, >= 1.")
    max_episode_steps: Steps = Field(
        default=27_000,
        description="An episode that takes more steps is cut there, >= 1 (Atari: 30 minutes, 108,000 frames).",
    )


class _EarlyStopping(Block):
    """Stop training once evaluations are good enough; the final evaluation follows as ever."""

    evaluations: Count = Field(
        default=3, description="Evaluations in a row that must reach the return before training stops, >= 1."
    )

    @property
    def target(self) -> float:
        """The key ``return``, which is no name of an attribute."""
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
    """Everything that a run is, on disk."""

    interval: Steps = Field(default=10_000, description="Environment steps between two checkpoints, >= 1.")
    keep_last: Count = Field(default=2, description="Checkpoints kept, the newest ones, >= 1.")
    keep_best: bool = Field(default=True, description="Keep the checkpoint of the best evaluation as well.")


class LoggingConfig(Block):
    """Metrics."""

    interval: Steps = Field(default=1_000, description="Environment steps between two lines of metrics, >= 1.")
    tensorboard: bool = Field(default=True, description="Write TensorBoard files beside metrics.csv.")
    wandb: bool = Field(default=False, description="Send metrics to Weights & Biases (extra wandb of the trainer).")


# --- the whole ---------------------------------------------------------------------------------------------------


class RunConfig(Block):
    """One run; the block of an algorithm that is not chosen has its defaults and is neither read nor written."""

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
    nn: NNConfig = Field(description="The network.")
    initial_weights: Text | None = Field(
        default=None,
        description=(
            "Run, or checkpoint of one, whose network this run starts from, such as `tesserl pretrain` writes it; "
            "null: none."
        ),
    )
    algorithm: AlgorithmName = Field(description="The algorithm; its options are in the block of that name.")
    iqn: IQNConfig = Field(default_factory=IQNConfig, description=BUILT_IN["iqn"].title)
    btr: BTR | None = Field(
        default=None,
        exclude=True,
        description=(
            "Switches of Beyond The Rainbow, of iqn alone: all, or a block. They fill other blocks where the file is "
            "silent, before anything is validated; a resolved file has none."
        ),
    )
    ppo: PPOConfig = Field(default_factory=PPOConfig, description=BUILT_IN["ppo"].title)
    grpo: GRPOConfig = Field(default_factory=GRPOConfig, description=BUILT_IN["grpo"].title)
    dpo: DPOConfig = Field(default_factory=DPOConfig, description=BUILT_IN["dpo"].title)
    cpl: CPLConfig = Field(default_factory=CPLConfig, description=BUILT_IN["cpl"].title)
    optimizer: Optimizer = Field(default_factory=Adam, description="The optimiser; defaults depend on the algorithm.")
    replay: Replay = Field(default_factory=UniformReplay, description="The replay buffer, of iqn alone.")
    pairs: PairsConfig = Field(
        default_factory=PairsConfig, description="Where the preferences come from, for dpo and cpl alone."
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
        description="Where the networks are: cpu, cuda or cuda:N.",
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

    @property
    def options(self) -> Block:
        """The block of the chosen algorithm."""
        block: Block = getattr(self, self.algorithm)
        return block

    @model_validator(mode="before")
    @classmethod
    def _fill_in_where_the_file_is_silent(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        resolution = resolve(data)
        if resolution.problems:
            raise ConfigError(*resolution.problems)
        return with_defaults(resolution.data)

    @field_validator("extends")
    @classmethod
    def _is_resolved_when_a_file_is_read(cls, name: str | None) -> None:
        if name is not None:
            raise ValueError("is read from files alone; write it at the top level of a file and load that")

    @field_validator("btr")
    @classmethod
    def _forget_what_stands_elsewhere_now(cls, block: Any) -> None:  # noqa: ARG003 - pydantic hands it over
        return None

    @field_validator(*OWNED, mode="before")
    @classmethod
    def _belongs_to_the_algorithm(cls, block: Any, info: ValidationInfo) -> Any:
        algorithm = info.data.get("algorithm")
        owners = owners_of(str(info.field_name), algorithm)
        if algorithm is not None and algorithm not in owners:
            raise ValueError(f"belongs to algorithm {' or '.join(owners)}, got algorithm {algorithm}; remove the block")
        return block

    @model_serializer(mode="wrap")
    def _without_other_algorithms(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        owners = {key: owners_of(key, self.algorithm) for key in OWNED}
        return {
            key: value for key, value in serialize(self).items() if self.algorithm in owners.get(key, (self.algorithm,))
        }

    @model_validator(mode="after")
    def _check_rules(self) -> RunConfig:
        problems = list(rules.check(self))
        if problems:
            raise ConfigError(*problems)
        return self


def config_class(data: Any) -> type[RunConfig]:
    """Return the class that validates the data of a file.

    Args:
        data: of a whole file.

    Returns:
        `RunConfig`, with the block of the file's algorithm if another package declares it.

    Raises:
        ConfigError: the declaration of the algorithm cannot be imported, or there are two.
    """
    algorithm = find(data.get("algorithm")) if isinstance(data, Mapping) else None
    return RunConfig if algorithm is None or algorithm.name in BUILT_IN else extended(algorithm.name)


def complete_class() -> type[RunConfig]:
    """Return `RunConfig` with the blocks of the algorithms of all installed packages.

    Raises:
        ConfigError: see `tesserl_configs.algorithms.installed`.
    """
    others = [algorithm.name for algorithm in installed() if algorithm.name not in BUILT_IN]
    return extended(*others) if others else RunConfig


@functools.cache
def extended(*names: str) -> type[RunConfig]:
    """Return `RunConfig` with the blocks of other packages' algorithms."""
    every = (*BUILT_IN, *names)
    fields: dict[str, Any] = {"algorithm": (Literal[every], RunConfig.model_fields["algorithm"])}
    for name in names:
        algorithm = declared(name)
        fields[name] = (
            algorithm.options,
            Field(default_factory=algorithm.options, description=algorithm.title),
        )
    return create_model("RunConfig", __base__=RunConfig, __doc__=RunConfig.__doc__, __module__=__name__, **fields)
