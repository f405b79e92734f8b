"""Build group-relative policy optimisation from ``grpo:``."""

from collections.abc import Callable
from typing import cast

from torch import nn

from tesserl_actor_critic import ActorCritic
from tesserl_collectors.rollout_policy import RolloutPolicy
from tesserl_configs import value_at
from tesserl_configs.grpo import CISPOLoss, ClippedLoss, GRPOConfig, ReinforceLoss, ResampleZeroVariance, SAPOLoss
from tesserl_configs.reference import movement_of
from tesserl_grpo import GRPOLoss
from tesserl_grpo.options import ImportanceLevel, LossKLKind
from tesserl_policy import ReferencePolicy
from tesserl_trainer.algorithms.acting.groups import build_actor, build_collector
from tesserl_trainer.algorithms.agent import Agent, agent_of, nothing, observing_rollouts
from tesserl_trainer.algorithms.collectors import build_agent_and_group_collector
from tesserl_trainer.algorithms.run import Run
from tesserl_trainer.algorithms.schedules import Number, at_start, attributes
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.networks.building import as_actor_critic
from tesserl_training.loops.groups import GroupLoop, Pace, Scoring
from tesserl_training.schedule import Scheduled

GRPOAgent = Agent[RolloutPolicy, GRPOLoss, GRPOLoss]


def build_agent(task: Task, network: nn.Module) -> GRPOAgent:
    """Build loss, optimiser and policy around an ``ActorCritic`` on the device; its value is frozen."""
    config, grpo = task.config, task.config.grpo
    actor = build_actor(task, network)
    actor_critic = as_actor_critic(network, config.algorithm)
    actor_critic.value.requires_grad_(False)
    loss, schedules = _loss(grpo, actor_critic)
    updated = _following(loss.reference, actor_critic)
    return agent_of(config, grpo, actor, loss, loss, schedules=schedules, updated=updated)


def build_loop(task: Task, run: Run) -> GroupLoop:
    """Build the loop: play groups from the same start, compare their returns, learn for some epochs."""
    config, grpo = task.config, task.config.grpo
    agent, collector = build_agent_and_group_collector(task, run, build_agent, build_collector, grpo)
    zero_variance = grpo.zero_variance
    attempts = zero_variance.max_attempts if isinstance(zero_variance, ResampleZeroVariance) else 1
    return GroupLoop(
        agent.learner(),
        agent.loss,
        collector,
        Scoring(
            credit=grpo.advantages.kind,
            baseline=grpo.advantages.baseline,
            scale=grpo.advantages.scale,
            discount=grpo.discount,
            zero_variance=zero_variance.kind,
            truncation=grpo.truncation,
            reduction=grpo.reduction,
            max_length=grpo.max_length,
        ),
        observing_rollouts(agent.policy.network),
        Pace(grpo.num_groups, grpo.num_epochs, grpo.num_minibatches, attempts),
        run.journal(task, agent, collector.pop_episodes, workers=collector.record),
        config.device,
        few_sizes=grpo.cuda_graph,
    )


def _loss(grpo: GRPOConfig, network: ActorCritic) -> tuple[GRPOLoss, list[Scheduled]]:
    """Build the loss, and the schedules of its coefficients."""
    clip_epsilon: Number = 0.2
    high: Number | None = None
    delta: float | None = None
    level: ImportanceLevel = "step"
    temperatures = (1.0, 1.05)
    scheduled_clip: dict[str, Number | None] = {}
    match grpo.loss:
        case ClippedLoss() as clipped:
            delta, level = clipped.delta, clipped.importance_level
            clip_epsilon, high = clipped.clip_epsilon, clipped.clip_epsilon_high
            scheduled_clip = {"clip_epsilon": clip_epsilon, "clip_epsilon_high": high}
        case CISPOLoss() as cispo:
            high, level = cispo.max_ratio, cispo.importance_level
        case SAPOLoss() as sapo:
            temperatures, level = (sapo.temperature_positive, sapo.temperature_negative), sapo.importance_level
        case ReinforceLoss():
            pass
    kl, reference = grpo.kl, None
    if kl is not None:
        interval, rate = movement_of(kl.reference)
        reference = ReferencePolicy(network, interval=interval, rate=rate)
    loss = GRPOLoss(
        network,
        kind=grpo.loss.kind,
        clip_epsilon=value_at(clip_epsilon, 0),
        clip_epsilon_high=at_start(high),
        delta=delta,
        temperatures=temperatures,
        importance_level=level,
        off_policy_threshold=grpo.off_policy_threshold,
        top_entropy_fraction=grpo.top_entropy_fraction,
        reduction=grpo.reduction,
        max_length=grpo.max_length,
        kl_coef=0.0 if kl is None else value_at(kl.coef, 0),
        kl_kind="k3" if kl is None else cast("LossKLKind", kl.estimator),  # validation refuses k1
        kl_importance_weighted=kl is not None and kl.importance_weighted,
        entropy_coef=value_at(grpo.entropy_coef, 0),
        reference=reference,
    )
    kl_coef = None if kl is None else kl.coef
    return loss, attributes(loss, entropy_coef=grpo.entropy_coef, **scheduled_clip, kl_coef=kl_coef)


def _following(reference: ReferencePolicy | None, network: ActorCritic) -> Callable[[int], None]:
    """Return the function that moves the reference after an update; the reference counts updates itself."""
    if reference is None:
        return nothing

    def follow(updates: int) -> None:  # noqa: ARG001 - the reference counts updates itself
        reference.step(network)

    return follow
