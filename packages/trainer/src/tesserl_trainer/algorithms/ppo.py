"""Build proximal policy optimisation from ``ppo:``."""

import functools

from torch import nn
from torchrl.objectives import ClipPPOLoss

from tesserl_actor_critic import ActorCritic, PPOLoss
from tesserl_collectors.rollout_policy import RolloutPolicy
from tesserl_configs import value_at
from tesserl_configs.ppo import PPOConfig, RunningRewardScaling
from tesserl_trainer.algorithms.acting.ppo import build_actor, build_collector
from tesserl_trainer.algorithms.agent import Agent, agent_of, observing_rollouts
from tesserl_trainer.algorithms.collectors import build_agent_and_collector
from tesserl_trainer.algorithms.run import Run
from tesserl_trainer.algorithms.schedules import at_start, attributes, scheduled
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.networks.building import as_actor_critic
from tesserl_training.advantages import Advantages
from tesserl_training.loops.on_policy import OnPolicyLoop, Pace
from tesserl_training.reward_scaling import RewardScaler
from tesserl_training.schedule import Scheduled

PPOAgent = Agent[RolloutPolicy, nn.Module, nn.Module]


def build_agent(task: Task, network: nn.Module, *, normalize: bool = True) -> PPOAgent:
    """Build loss, optimiser and policy around an ``ActorCritic``; ``normalize`` lets the loss normalise advantages."""
    config, ppo = task.config, task.config.ppo
    actor = build_actor(task, network)
    actor_critic = as_actor_critic(network, config.algorithm)
    ppo = ppo.model_copy(update={"normalize_advantage": ppo.normalize_advantage and normalize})
    loss, schedules = _torchrl_loss(ppo, actor_critic) if ppo.loss == "torchrl" else _loss(ppo, actor_critic)
    return agent_of(config, ppo, actor, loss, network, schedules=schedules, has_value=True)


def build_loop(task: Task, run: Run) -> OnPolicyLoop:
    """Build the loop: collect a rollout, estimate advantages, learn from minibatches for some epochs."""
    config, ppo = task.config, task.config.ppo
    several = run.ranks.number > 1
    build = functools.partial(build_agent, normalize=not several)
    agent, collector = build_agent_and_collector(task, run, build, build_collector)
    scaling, steps = ppo.reward_scaling, ppo.num_steps * config.environment.num_envs
    advantages = Advantages(
        agent.policy,
        task.layout.keys,
        discount=ppo.discount,
        gae_lambda=ppo.gae_lambda,
        scaler=RewardScaler(ppo.discount, scaling.clip, update=run.ranks.update_statistics)
        if isinstance(scaling, RunningRewardScaling)
        else None,
        device=config.device,
        chunk=max(steps // ppo.num_minibatches, 1),
    )
    return OnPolicyLoop(
        agent.learner(),
        collector,
        agent.policy,
        advantages,
        observing_rollouts(agent.policy.network, run.ranks),
        Pace(ppo.num_steps, ppo.num_epochs, ppo.num_minibatches, ppo.target_kl),
        run.journal(task, agent, collector.pop_episodes, workers=collector.record),
        remedy="lower optimizer.learning_rate or ppo.max_grad_norm",
        normalize=ppo.normalize_advantage and several,
    )


def _loss(ppo: PPOConfig, network: ActorCritic) -> tuple[PPOLoss, list[Scheduled]]:
    """Build the loss, and the schedules of its coefficients."""
    loss = PPOLoss(
        network.actor,
        network.critic,
        clip_epsilon=value_at(ppo.clip_epsilon, 0),
        clip_epsilon_high=at_start(ppo.clip_epsilon_high),
        dual_clip=ppo.dual_clip,
        value_clip=ppo.value_clip,
        value_loss=ppo.value_loss,
        value_coef=ppo.value_coef,
        entropy_coef=value_at(ppo.entropy_coef, 0),
        normalize_advantage=ppo.normalize_advantage,
    )
    return loss, attributes(
        loss,
        clip_epsilon=ppo.clip_epsilon,
        entropy_coef=ppo.entropy_coef,
        clip_epsilon_high=ppo.clip_epsilon_high,
    )


def _torchrl_loss(ppo: PPOConfig, network: ActorCritic) -> tuple[nn.Module, list[Scheduled]]:
    """Build torchrl's own loss; its squared error has no factor 1/2."""
    loss = ClipPPOLoss(
        network.actor,
        network.critic,
        clip_epsilon=value_at(ppo.clip_epsilon, 0),
        entropy_coeff=value_at(ppo.entropy_coef, 0),
        critic_coeff=ppo.value_coef * (0.5 if ppo.value_loss == "l2" else 1.0),
        loss_critic_type=ppo.value_loss,
        normalize_advantage=ppo.normalize_advantage,
    )
    return loss, [
        scheduled("clip_epsilon", ppo.clip_epsilon, loss.clip_epsilon.fill_),
        scheduled("entropy_coef", ppo.entropy_coef, loss.entropy_coeff.fill_),
    ]
