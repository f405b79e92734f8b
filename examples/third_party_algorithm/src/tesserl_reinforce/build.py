"""Build REINFORCE from its block; the trainer imports this module when it builds a run."""

from torch import nn

from tesserl_actor_critic import ActorCritic
from tesserl_collectors.rollout_policy import RolloutPolicy
from tesserl_reinforce.loss import ReinforceLoss
from tesserl_reinforce.plugin import ReinforceConfig
from tesserl_trainer.algorithms.agent import Agent, forward_of, learning, observing_rollouts
from tesserl_trainer.algorithms.optimizers import learning_rate_schedule, optimizer_of
from tesserl_trainer.algorithms.run import Run, make_collector
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.machine import device_of
from tesserl_trainer.networks.building import as_actor_critic, build_policy_network
from tesserl_training.advantages import Advantages
from tesserl_training.loops.on_policy import OnPolicyLoop, Pace

ReinforceAgent = Agent[RolloutPolicy, ReinforceLoss, nn.Module]


def options_of(task: Task) -> ReinforceConfig:
    """Return the block ``reinforce:``."""
    options = task.config.options
    if not isinstance(options, ReinforceConfig):
        raise TypeError(f"expected a run of reinforce, got {task.config.algorithm}")
    return options


def build_network(task: Task) -> ActorCritic:
    """Build the policy and its baseline on one body."""
    return build_policy_network(task.config.nn, task.layout, task.action_space)


def build_agent(task: Task, network: nn.Module) -> ReinforceAgent:
    """Build the loss, the optimiser and the policy around a network."""
    config, options = task.config, options_of(task)
    actor_critic = as_actor_critic(network.to(device_of(config.device)), config.algorithm)
    loss = ReinforceLoss(actor_critic, value_coef=options.value_coef, entropy_coef=options.entropy_coef)
    optimizer = optimizer_of(config, network)
    policy = RolloutPolicy(actor_critic)
    return Agent(
        saved=network,
        loss=loss,
        forward=forward_of(loss, precision="float32", compiled=False, device=config.device),
        parameters=learning(network),
        optimizer=optimizer,
        policy=policy,
        act=policy.act,
        schedules=[learning_rate_schedule(config.optimizer, optimizer)],
        precision="float32",
        max_grad_norm=options.max_grad_norm,
        has_value=True,
    )


def build_loop(task: Task, run: Run) -> OnPolicyLoop:
    """Build the loop: collect a rollout, one gradient step on all of it. Lambda 1 makes advantages of whole returns."""
    config, options = task.config, options_of(task)
    environments = run.keep(task.environments(config.environment.num_envs))
    agent = build_agent(task, run.network(task))
    collector = make_collector(task, agent, environments, records=agent.policy.records)
    advantages = Advantages(
        agent.policy, task.layout.keys, discount=options.discount, gae_lambda=1.0, device=config.device
    )
    return OnPolicyLoop(
        agent.learner(),
        collector,
        agent.policy,
        advantages,
        observing_rollouts(agent.policy.network),
        Pace(options.num_steps, num_epochs=1, num_minibatches=1),
        run.journal(task, agent, collector.pop_episodes),
        remedy="lower optimizer.learning_rate or reinforce.max_grad_norm",
    )
