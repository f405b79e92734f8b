"""Split a configuration among ranks; refuse configurations that ranks cannot share."""

from collections.abc import Iterator

import torch

from tesserl_configs import ConfigError, RunConfig
from tesserl_configs.collectors import LocalCollectors
from tesserl_configs.errors import Problem
from tesserl_configs.graph_rules import Graphed
from tesserl_configs.grpo import GRPOConfig
from tesserl_configs.iqn import IQNConfig
from tesserl_configs.pairs import OfflinePairs
from tesserl_configs.preferences import PreferenceOptions
from tesserl_ranks.group import Ranks
from tesserl_trainer.machine import device_of


def part_of(config: RunConfig, ranks: Ranks, local_rank: int) -> RunConfig:
    """Return the configuration of one rank: its share of the environments and of the replay, on its device."""
    if ranks.number == 1:
        return config
    if problems := list(_problems(config, ranks.number)):
        raise ConfigError(*map(str, problems))
    environment = config.environment
    changed: dict[str, object] = {
        "environment": environment.model_copy(update={"num_envs": environment.num_envs // ranks.number}),
    }
    if torch.device(config.device).type == "cuda":
        changed["device"] = f"cuda:{local_rank}"
        device_of(f"cuda:{local_rank}")
    if isinstance(options := config.options, IQNConfig):
        replay = config.replay
        changed["iqn"] = options.model_copy(update={"batch_size": options.batch_size // ranks.number})
        changed["replay"] = replay.model_copy(update={"capacity": replay.capacity // ranks.number})
    return config.model_copy(update=changed)


def _problems(config: RunConfig, number: int) -> Iterator[Problem]:
    """Yield the settings that do not work with several ranks."""
    for key, value in _totals(config).items():
        if value % number:
            yield Problem(
                key,
                f"expected a multiple of the number of ranks, {number}, got {value}; write "
                f"{-(-value // number) * number}, or start another number of ranks",
            )
    if not isinstance(config.collectors, LocalCollectors):
        yield Problem(
            "collectors",
            f"expected kind local with {number} ranks, each of which collects in its own process, got "
            f"{config.collectors.kind}; leave it out",
        )
    if isinstance(config.options, Graphed) and config.options.cuda_graph:
        key = f"{config.algorithm}.cuda_graph"
        yield Problem(key, f"expected false with {number} ranks, whose gradients no graph holds, got true")
    if isinstance(options := config.options, GRPOConfig) and options.starts.kind == "visited":
        yield Problem(
            "grpo.starts.kind",
            f"expected seed, state or level with {number} ranks, each of which knows only its own trajectories, got "
            "visited; choose seed, or start one rank",
        )
    if torch.device(config.device).index is not None:
        yield Problem(
            "device",
            f"expected cpu or cuda with {number} ranks, each of which has the GPU of its number, got {config.device}",
        )


def _totals(config: RunConfig) -> dict[str, int]:
    """Return the totals that are divided among ranks, by key."""
    totals: dict[str, int] = {}
    options = config.options
    if not (isinstance(options, PreferenceOptions) and isinstance(config.pairs.source, OfflinePairs)):
        totals["environment.num_envs"] = config.environment.num_envs
    if isinstance(options, PreferenceOptions | IQNConfig):
        totals[f"{config.algorithm}.batch_size"] = options.batch_size
    if isinstance(options, IQNConfig):
        totals["replay.capacity"] = config.replay.capacity
    return totals
