"""``grpo:`` and an actor-critic network, whose critic is not used -> what acts and what learns."""

import functools
from collections.abc import Callable
from typing import Any

from tesserl_actor_critic import ActorCritic
from tesserl_configs import RunConfig, value_at
from tesserl_grpo import GRPOLoss, ReferencePolicy
from tesserl_trainer.run.policy import RolloutPolicy
from tesserl_trainer.run.schedule import Scheduled
from tesserl_trainer.run.starts import GroupStarts, LevelStart, SeedStart, Start, StateStart
from tesserl_trainer.wiring.environments import Environments
from tesserl_trainer.wiring.learning import Algorithm, forward_of, learning_rate_schedule, optimizer_of, scheduled


def build_grpo(config: RunConfig, network: ActorCritic) -> Algorithm:
    """Builds everything that surrounds a policy.

    Args:
        config: the whole configuration.
        network: what ``build_network`` returned, on its device; its value is frozen.

    Raises:
        ConfigError: nothing is left to learn.
    """
    grpo = config.grpo
    network.value.requires_grad_(False)
    loss, schedules = _loss(grpo, network)
    optimizer = optimizer_of(config, network)
    policy = RolloutPolicy(network, record_values=False)
    return Algorithm(
        saved=loss,
        loss=loss,
        forward=forward_of(loss, precision=grpo.precision, compiled=grpo.compile, device=config.device),
        parameters=[parameter for parameter in network.parameters() if parameter.requires_grad],
        optimizer=optimizer,
        updated=_following(loss.reference, network),
        policy=policy,
        act=policy.act,
        schedules=[*schedules, learning_rate_schedule(config.optimizer, optimizer)],
    )


def _loss(grpo: Any, network: ActorCritic) -> tuple[GRPOLoss, list[Scheduled]]:
    """The loss, and the schedules of what changes in it."""
    kind, kl = grpo.loss, grpo.kl
    changing: dict[str, Any] = {"entropy_coef": grpo.entropy_coef}
    fixed: dict[str, Any] = {}
    if kind.kind == "clip":
        changing["clip_epsilon"] = kind.clip_epsilon
        if kind.clip_epsilon_high is not None:
            changing["clip_epsilon_high"] = kind.clip_epsilon_high
        fixed["delta"] = kind.delta
    if kind.kind == "cispo":
        fixed["clip_epsilon_high"] = kind.max_ratio
    if kl is not None:
        changing["kl_coef"] = kl.coef
        fixed |= {"kl_kind": kl.estimator, "reference": build_reference(kl.reference, network)}
    loss = GRPOLoss(
        network,
        kind=kind.kind,
        importance_level=getattr(kind, "importance_level", "step"),
        top_entropy_fraction=grpo.top_entropy_fraction,
        reduction=grpo.reduction,
        max_length=grpo.max_length,
        **(fixed | {name: value_at(value, 0) for name, value in changing.items()}),
    )
    return loss, [scheduled(name, value, functools.partial(setattr, loss, name)) for name, value in changing.items()]


def build_reference(config: Any, network: ActorCritic) -> ReferencePolicy:
    """Builds the policy that a penalty compares with.

    Args:
        config: a ``reference:`` block.
        network: the policy that learns.
    """
    match config.kind:
        case "sync":
            return ReferencePolicy(network, interval=config.interval)
        case "moving_average":
            return ReferencePolicy(network, interval=config.interval, rate=config.rate)
    return ReferencePolicy(network)


def _following(reference: ReferencePolicy | None, network: ActorCritic) -> Callable[[int], None]:
    def follow(updates: int) -> None:  # noqa: ARG001 - the reference counts by itself
        if reference is not None:
            reference.step(network)

    return follow


def build_starts(settings: Any, environments: Environments, *, group_size: int, seed: int) -> GroupStarts:
    """Gives the slots of a vector environment their starts.

    Args:
        settings: a ``starts:`` block.
        environments: in DISABLED autoreset mode.
        group_size: trajectories of each start.
        seed: of the run.
    """
    start: Start
    number: int | None
    match settings.kind:
        case "level":
            start, number = LevelStart(seed, settings.option), settings.num_levels
        case "state":
            start, number = StateStart(seed), settings.num_starts
        case _:
            start, number = SeedStart(seed), settings.num_starts
    return GroupStarts(environments, start, group_size=group_size, num_starts=number)
