"""``dpo:`` or ``cpl:``, ``pairs:`` and an actor-critic network -> what acts, what learns, and from which pairs."""

import functools
from collections.abc import Callable
from typing import Any

from torch import nn

from tesserl_actor_critic import ActorCritic
from tesserl_configs import ConfigError, RunConfig, value_at
from tesserl_preference_opt import (
    BehaviorCloningLoss,
    CPLLoss,
    KTOLoss,
    PreferenceLoss,
    PreferencePairs,
    ReferencePolicy,
    ScriptedTeacher,
    StoreError,
)
from tesserl_trainer.run.cloning import Cloning
from tesserl_trainer.run.groups import GroupCollector
from tesserl_trainer.run.learner import Learner
from tesserl_trainer.run.observations import ObservationLayout
from tesserl_trainer.run.pair_sources import FreshPairs, StoredPairs, check_entries
from tesserl_trainer.run.pairs import REFERENCE, SCORE, VALUE_TARGET, Batches, with_entries
from tesserl_trainer.run.policy import RolloutPolicy
from tesserl_trainer.run.reference import Policies
from tesserl_trainer.run.schedule import Scheduled
from tesserl_trainer.wiring.learning import Algorithm, forward_of, learning_rate_schedule, optimizer_of, scheduled


def build_preferences(config: RunConfig, network: ActorCritic) -> Algorithm:
    """Builds everything that surrounds a policy.

    Args:
        config: the whole configuration.
        network: what ``build_network`` returned, on its device; its value is frozen unless it is to learn too.

    Raises:
        ConfigError: nothing is left to learn.
    """
    settings = preference_settings(config)
    if settings.value is None:
        network.value.requires_grad_(False)
    loss, schedules = _cpl(settings, network) if config.algorithm == "cpl" else _dpo(settings, network)
    frozen = ReferencePolicy(network) if getattr(loss, "needs_reference", False) and loss.reference is None else None
    optimizer = optimizer_of(config, network)
    policy = RolloutPolicy(network, record_values=False)
    follow: Callable[[], None] = getattr(loss, "update_reference", lambda: None)
    return Algorithm(
        saved=Policies(loss, network, frozen, settings.precision),
        loss=loss,
        forward=forward_of(loss, precision=settings.precision, compiled=settings.compile, device=config.device),
        parameters=[parameter for parameter in network.parameters() if parameter.requires_grad],
        optimizer=optimizer,
        updated=lambda updates: follow(),  # noqa: ARG005 - the reference counts by itself
        policy=policy,
        act=policy.act,
        schedules=[*schedules, learning_rate_schedule(config.optimizer, optimizer)],
    )


def preference_settings(config: RunConfig) -> Any:
    """The block of the algorithm: ``dpo:`` or ``cpl:``."""
    return config.cpl if config.algorithm == "cpl" else config.dpo


def _dpo(dpo: Any, network: ActorCritic) -> tuple[Any, list[Scheduled]]:
    """A loss of the family of DPO, and the schedules of what changes in it."""
    changing: dict[str, Any] = {"beta": dpo.beta, "entropy_coef": dpo.entropy_coef}
    if dpo.nll_coef is not None:
        changing["nll_coef"] = dpo.nll_coef
    now: dict[str, Any] = {name: value_at(value, 0) for name, value in changing.items()}
    kind, moving = dpo.loss, _moving(dpo.reference)
    loss: nn.Module
    if kind.kind == "kto":  # it asks the reference about actions that nobody took: one that is frozen is held too
        loss = KTOLoss(
            network,
            desirable_weight=kind.desirable_weight,
            undesirable_weight=kind.undesirable_weight,
            discount=dpo.discount,
            length_normalize=bool(dpo.length_normalize),
            **now,
            **moving,
        )
        return loss, _schedules(loss, changing)
    divergence = getattr(kind, "f_divergence", None)
    loss = PreferenceLoss(
        network,
        loss_type=kind.kind,
        label_smoothing=getattr(kind, "label_smoothing", 0.0),
        discount=dpo.discount,
        length_normalize=dpo.length_normalize,
        f_divergence="reverse_kl" if divergence is None else divergence.kind,
        f_alpha=getattr(divergence, "alpha", 0.5),
        simpo_gamma=getattr(kind, "gamma", 0.5),
        discopop_tau=getattr(kind, "tau", 0.05),
        reference_free=dpo.reference.kind == "none",
        reference_network="copy" if moving else None,
        value_coef=0.0 if dpo.value is None else dpo.value.coef,
        **now,
        **moving,
    )
    return loss, _schedules(loss, changing)


def _moving(reference: Any) -> dict[str, Any]:
    """How a reference moves; nothing where it does not."""
    match reference.kind:
        case "sync":
            return {"reference_sync_interval": reference.interval}
        case "moving_average":
            return {"reference_sync_interval": reference.interval, "reference_update_rate": reference.rate}
    return {}


def _cpl(cpl: Any, network: ActorCritic) -> tuple[Any, list[Scheduled]]:
    """The loss of contrastive preference learning, and the schedules of what changes in it."""
    changing = {"entropy_coef": cpl.entropy_coef, "bc_coef": cpl.bc_coef}
    loss = CPLLoss(
        network,
        alpha=cpl.alpha,
        bias=cpl.bias,
        discount=cpl.discount,
        length_normalize=cpl.length_normalize,
        value_coef=0.0 if cpl.value is None else cpl.value.coef,
        **{name: value_at(value, 0) for name, value in changing.items()},
    )
    return loss, _schedules(loss, changing)


def _schedules(loss: nn.Module, changing: dict[str, Any]) -> list[Scheduled]:
    return [scheduled(name, value, functools.partial(setattr, loss, name)) for name, value in changing.items()]


def build_cloning(config: RunConfig, network: ActorCritic) -> Cloning | None:
    """Builds the pretraining of ``dpo:`` or ``cpl:``, with an optimiser of its own; None where there is none."""
    settings = preference_settings(config)
    if settings.pretraining is None:
        return None
    learner = cloning_learner(config, network, side=settings.pretraining.data, max_grad_norm=settings.max_grad_norm)
    return Cloning(learner, settings.pretraining.num_updates)


def cloning_learner(config: RunConfig, network: ActorCritic, *, side: Any, max_grad_norm: float | None) -> Learner:
    """Builds what clones behaviour.

    Args:
        config: the whole configuration; of it the optimiser, at the learning rate of step 0.
        network: the policy.
        side: whose actions of a pair are cloned: ``"chosen"`` or ``"all"``.
        max_grad_norm: see ``Learner``.
    """
    optimizer = optimizer_of(config, network)
    loss = BehaviorCloningLoss(network, side=side)
    precision = getattr(getattr(config, config.algorithm), "precision", "float32")
    return Learner(
        loss=loss,
        forward=forward_of(loss, precision=precision, compiled=False, device=config.device),
        parameters=[parameter for parameter in network.parameters() if parameter.requires_grad],
        optimizer=optimizer,
        max_grad_norm=max_grad_norm,
    )


def build_batches(config: RunConfig, algorithm: Algorithm, layout: ObservationLayout) -> Batches:
    """Builds what makes batches: of what the loss reads."""
    keys = _entries(config, layout)
    if algorithm.saved.frozen is not None:
        keys.append(REFERENCE)
    return Batches(keys, ranking=SCORE in keys, device=config.device)


def build_stored_pairs(config: RunConfig, layout: ObservationLayout) -> StoredPairs | None:
    """Opens the stored pairs of ``pairs:``; None where there are none.

    Raises:
        ConfigError: there is no store, or its pairs are not of this task.
    """
    pairs, source = config.pairs, config.pairs.source
    if source.kind == "online":
        return None

    def prepare(stored: PreferencePairs) -> PreferencePairs:
        rewards = {"reward"} if preference_settings(config).value else set()
        keys = {*layout.keys, "action", *rewards}
        check_entries(stored.pool.blocks[0].steps, sorted(keys), layout.shapes, source.path)
        return _prepare(config, layout, stored)

    try:
        return StoredPairs(source.path, prepare, holdout_fraction=pairs.holdout_fraction, seed=config.seed)
    except (StoreError, ValueError) as error:
        raise ConfigError(f"pairs.source.path: {error}") from error


def build_fresh_pairs(config: RunConfig, collector: GroupCollector, layout: ObservationLayout) -> FreshPairs:
    """Builds what makes pairs of trajectories, as ``pairs:`` says.

    Args:
        config: the whole configuration.
        collector: plays groups.
        layout: the keys that the task's observations yield.
    """
    source: Any = config.pairs.source
    teacher = None if source.teacher is None else ScriptedTeacher(**source.teacher.model_dump())
    return FreshPairs(
        collector,
        lambda pairs: _prepare(config, layout, pairs),
        num_groups=source.num_groups,
        same_start=source.same_start,
        segment_length=_segment_length(source.segments),
        num_pairs=source.pairs_per_iteration,
        discount=source.score_discount,
        min_margin=source.min_margin,
        ties=source.ties,
        teacher=teacher,
        buffer_size=source.buffer_size,
        holdout_fraction=config.pairs.holdout_fraction,
    )


def _segment_length(segments: Any) -> int | tuple[int, int] | None:
    match segments.kind:
        case "fixed":
            return int(segments.length)
        case "variable":
            return segments.min_length, segments.max_length
    return None


def _entries(config: RunConfig, layout: ObservationLayout) -> list[str]:
    """What is learned from by the step."""
    settings = preference_settings(config)
    keys = [*layout.keys, "action"]
    if settings.value is not None:
        keys.append(VALUE_TARGET)
    if getattr(settings, "comparison", "pairs") == "ranking":
        keys.append(SCORE)
    return keys


def _prepare(config: RunConfig, layout: ObservationLayout, pairs: PreferencePairs) -> PreferencePairs:
    value = preference_settings(config).value
    return with_entries(
        pairs,
        _entries(config, layout),
        value_discount=None if value is None else value.discount,
        score_discount=getattr(config.pairs.source, "score_discount", 1.0),
    )
