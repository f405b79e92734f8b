"""Declarations of the algorithms that a configuration can name, of this project and of installed packages.

A package declares an algorithm by an entry point of the group ``tesserl.algorithms`` that points to an `Algorithm`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from tesserl_configs import grpo_rules, iqn_rules, ppo_rules, preference_rules
from tesserl_configs.base import Block
from tesserl_configs.errors import ConfigError, Problem
from tesserl_configs.grpo import GRPOConfig
from tesserl_configs.iqn import IQNConfig
from tesserl_configs.ppo import PPOConfig
from tesserl_configs.preferences import CPLConfig, DPOConfig

GROUP = "tesserl.algorithms"
"""The group of entry points that declare algorithms."""

SINGLE_STEPS = "learns from steps without the state before them"


@dataclass(frozen=True)
class Algorithm:
    """Declaration of an algorithm.

    Args:
        name: value of ``algorithm:`` and name of the block of its options.
        options: class of the block.
        builder: module that builds it, imported when a run is built; see `tesserl_trainer.algorithms.Builder`.
        acting: module that builds only the policy, without the loss, for processes that do not learn; None: ``builder``
            does this too.
        title: description of the block; empty for algorithms of this project, which have it in the schema.
        network: heads of its network: ``"quantile"``: quantiles at embedded fractions; ``"value"``: a value of each
            action, or quantiles at fixed fractions; ``"policy"``: a policy, and a value if ``has_value``.
        blocks: top-level blocks that it reads in addition to its own: ``btr``, ``pairs`` or ``replay``.
        has_value: whether its network has a stream ``value`` beside ``policy``.
        without_memory: reason why ``nn.memory`` cannot be used; None if it can.
        process_collectors: whether worker processes can collect for it, with ``build_collector`` of ``acting`` or
            ``builder``.
        optimizer: its defaults of ``optimizer``, for kinds of the Adam family.
        optimizer_kind: kind of the optimizer if the file has no block ``optimizer``.
        hidden_sizes: its default of ``nn.heads.hidden_sizes``; None keeps that of the schema.
        memory: keys that determine its memory use, besides those of the task and the network.
        start: keys of the file that ``tesserl init`` writes, by their top-level block; those of ``nn.vision`` and
            ``nn.vector`` are written where the task has such observations.
        rules: rules between keys; each takes a `RunConfig` of this algorithm and yields its problems.
    """

    name: str
    options: type[Block]
    builder: str
    acting: str | None = None
    title: str = ""
    network: Literal["quantile", "value", "policy"] = "policy"
    blocks: tuple[Literal["btr", "pairs", "replay"], ...] = ()
    has_value: bool = True
    without_memory: str | None = SINGLE_STEPS
    process_collectors: bool = False
    optimizer: Mapping[str, float] = field(default_factory=dict)
    optimizer_kind: Literal["adam", "adamw", "radam"] = "adam"
    hidden_sizes: tuple[int, ...] | None = ()
    memory: tuple[str, ...] = ()
    start: Mapping[str, Any] = field(default_factory=dict)
    rules: tuple[Callable[[Any], Iterator[Problem]], ...] = ()


_FRESH_PAIRS = {"kind": "online", "num_groups": 4, "group_size": 4, "buffer_size": 48, "num_epochs": 2}

BUILT_IN: dict[str, Algorithm] = {
    algorithm.name: algorithm
    for algorithm in (
        Algorithm(
            name="iqn",
            options=IQNConfig,
            builder="tesserl_trainer.algorithms.iqn",
            acting="tesserl_trainer.algorithms.acting.iqn",
            network="quantile",
            blocks=("btr", "replay"),
            without_memory="learns from single transitions, which hold no state to continue from",
            process_collectors=True,
            hidden_sizes=None,
            memory=("replay.capacity", "iqn.batch_size"),
            start={
                "nn": {"heads": {"hidden_sizes": [64]}},
                "iqn": {
                    **dict.fromkeys(("num_taus", "num_target_taus", "num_policy_taus"), 8),
                    "discount": 0.99,
                    "num_steps": 3,
                    "batch_size": 64,
                    "update_interval": 4,
                    "target_update": {"kind": "soft", "rate": 0.01},
                    "exploration": {
                        "kind": "epsilon",
                        "epsilon": {"kind": "linear", "knots": [[0, 1.0], [10_000, 0.02]]},
                    },
                },
                "optimizer": {"learning_rate": 5e-4},
                "replay": {"kind": "uniform", "capacity": 50_000, "warmup_steps": 1_000},
            },
            rules=iqn_rules.RULES,
        ),
        Algorithm(
            name="ppo",
            options=PPOConfig,
            builder="tesserl_trainer.algorithms.ppo",
            acting="tesserl_trainer.algorithms.acting.ppo",
            without_memory=None,
            process_collectors=True,
            optimizer={"learning_rate": 2.5e-4, "eps": 1e-5},  # CleanRL
            memory=("ppo.num_steps", "ppo.num_minibatches"),
            start={
                "ppo": {
                    "num_steps": 128,
                    "num_epochs": 4,
                    "num_minibatches": 4,
                    "discount": 0.99,
                    "gae_lambda": 0.95,
                    "clip_epsilon": 0.2,
                    "entropy_coef": 0.01,
                    "reward_scaling": {"kind": "running"},
                },
                "optimizer": {"learning_rate": 1e-3},
            },
            rules=ppo_rules.RULES,
        ),
        Algorithm(
            name="grpo",
            options=GRPOConfig,
            builder="tesserl_trainer.algorithms.grpo",
            acting="tesserl_trainer.algorithms.acting.groups",
            has_value=False,
            process_collectors=True,
            optimizer={"learning_rate": 2.5e-4, "eps": 1e-5},  # those of ppo
            memory=("grpo.num_groups", "grpo.group_size"),
            start={
                "grpo": {
                    "group_size": 8,
                    "num_groups": 4,
                    "discount": 0.99,
                    "advantages": {"kind": "to_go"},
                    "num_epochs": 4,
                    "num_minibatches": 4,
                },
                "optimizer": {"learning_rate": 1e-3},
            },
            rules=grpo_rules.RULES,
        ),
        Algorithm(
            name="dpo",
            options=DPOConfig,
            builder="tesserl_trainer.algorithms.dpo",
            acting="tesserl_trainer.algorithms.acting.groups",
            blocks=("pairs",),
            process_collectors=True,
            optimizer={"learning_rate": 1e-4, "eps": 1e-8},  # CPL's code, torch
            memory=("dpo.batch_size", "pairs.source"),
            start={
                "pairs": {"source": _FRESH_PAIRS},
                "dpo": {"beta": 0.1, "reference": {"kind": "sync", "interval": 6}, "batch_size": 16},
                "optimizer": {"learning_rate": 1e-3},
            },
            rules=preference_rules.DPO_RULES,
        ),
        Algorithm(
            name="cpl",
            options=CPLConfig,
            builder="tesserl_trainer.algorithms.cpl",
            acting="tesserl_trainer.algorithms.acting.groups",
            blocks=("pairs",),
            process_collectors=True,
            optimizer={"learning_rate": 1e-4, "eps": 1e-8},  # CPL's code, torch
            memory=("cpl.batch_size", "pairs.source"),
            start={
                "pairs": {"source": _FRESH_PAIRS},
                "cpl": {"alpha": 0.1, "batch_size": 16},
                "optimizer": {"learning_rate": 1e-3},
            },
            rules=preference_rules.CPL_RULES,
        ),
    )
}
"""The algorithms of this project."""

SHARED = ("btr", "replay", "pairs")
"""Blocks that some algorithms read."""


def declared(name: str) -> Algorithm:
    """Return the declaration of an algorithm, importing it if another package declares it.

    Args:
        name: name of the algorithm.

    Raises:
        ConfigError: no installed package declares it, several do, or its declaration cannot be imported.
    """
    found = find(name)
    if found is None:
        raise ConfigError(Problem("algorithm", f"no installed package declares {name}; install the one that does"))
    return found


def find(name: object) -> Algorithm | None:
    """Return the declaration of an algorithm; None if no package declares that name.

    Raises:
        ConfigError: several packages declare it, or its declaration cannot be imported.
    """
    if not isinstance(name, str):
        return None
    return BUILT_IN.get(name) or _plugin(name)


def installed() -> list[Algorithm]:
    """Import and return the declarations of all algorithms, those of this project first.

    Raises:
        ConfigError: a name is declared twice, or a declaration cannot be imported.
    """
    points = entry_points(group=GROUP)
    for point in points:
        if point.name in BUILT_IN:
            raise ConfigError(
                Problem("algorithm", f"{point.name} is declared by tesserl-configs and {_owner(point)}; uninstall one")
            )
    others = (_plugin(name) for name in sorted({point.name for point in points}))
    return [*BUILT_IN.values(), *(found for found in others if found is not None)]


def owners_of(block: str, name: object = None) -> tuple[str, ...]:
    """Return the algorithms that read a top-level block; empty if all do.

    Args:
        block: name of the block.
        name: an algorithm of another package to include.
    """
    if block in BUILT_IN:
        return (block,)
    other = None if name in BUILT_IN else find(name)
    if other is not None and block == other.name:
        return (other.name,)
    known = [*BUILT_IN.values(), *([] if other is None else [other])]
    return tuple(algorithm.name for algorithm in known if block in algorithm.blocks)


@functools.cache
def _plugin(name: str) -> Algorithm | None:
    """Import the declaration of an algorithm of another package."""
    points = tuple(entry_points(group=GROUP, name=name))
    owners = sorted({_owner(point) for point in points})
    if not points:
        return None
    if len(owners) > 1:
        raise ConfigError(Problem("algorithm", f"{name} is declared by {' and '.join(owners)}; uninstall one of them"))
    try:
        algorithm = points[0].load()
    except Exception as error:
        raise ConfigError(
            Problem(
                "algorithm",
                f"{name} of {owners[0]} cannot be imported ({type(error).__name__}: {error}); reinstall the package",
            )
        ) from error
    if not isinstance(algorithm, Algorithm) or algorithm.name != name:
        got = algorithm.name if isinstance(algorithm, Algorithm) else type(algorithm).__name__
        raise ConfigError(
            Problem(
                "algorithm", f"{owners[0]} must declare an Algorithm of the name {name}, got {got}; report it there"
            )
        )
    return algorithm


def _owner(point: EntryPoint) -> str:
    """Return the distribution that declares an entry point."""
    return "an unknown package" if point.dist is None else f"{point.dist.name} {point.dist.version}"
