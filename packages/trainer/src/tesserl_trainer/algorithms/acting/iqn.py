"""Build the quantile network, its policy and the collector of transitions from ``iqn:``."""

import functools

from torch import Tensor, nn

from tesserl_collectors.collector import Act, Collector
from tesserl_configs import value_at
from tesserl_configs.iqn import BoltzmannExploration
from tesserl_environments.making import Environments
from tesserl_iqn import QuantileNetwork, QuantilePolicy
from tesserl_nn_components import RunningNormalizer
from tesserl_trainer.algorithms.agent import Actor
from tesserl_trainer.algorithms.environments import discrete_actions
from tesserl_trainer.algorithms.run import make_collector
from tesserl_trainer.algorithms.schedules import attributes
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.machine import device_of
from tesserl_trainer.networks.building import build_quantile_network
from tesserl_training.schedule import Scheduled


def build_network(task: Task) -> QuantileNetwork:
    """Build the quantile network."""
    num_actions, num_blocks = discrete_actions(task.action_space)
    return build_quantile_network(task.config, task.layout, num_actions, num_blocks)


def build_actor(task: Task, network: nn.Module, *, observes: bool = True) -> Actor[QuantilePolicy]:
    """Build the policy around a ``QuantileNetwork`` on the device; it may update running statistics while acting."""
    config, iqn = task.config, task.config.iqn
    network.to(device_of(config.device))
    if not isinstance(network, QuantileNetwork):
        raise TypeError(f"iqn does not train a {type(network).__name__}; build the network with build_network")
    policy = QuantilePolicy(
        network,
        num_taus=iqn.num_policy_taus,
        tau_sampling="midpoints" if iqn.policy_tau_sampling == "midpoint" else "uniform",
        risk=None if iqn.risk is None else (iqn.risk.kind, iqn.risk.eta),
        greedy_risk=iqn.risk is None or not iqn.risk.exploration_only,
        redraw_noise=config.nn.heads.noisy,
        explore_per_block=iqn.exploration.per_block,
        mark_greedy=config.replay.cut_at_exploration,
    )
    return Actor(policy, observing(network, policy.act) if observes else policy.act, _exploration(task, policy))


def build_collector(task: Task, actor: Actor[QuantilePolicy], environments: Environments) -> Collector:
    """Build the collector of transitions, with greedy flags if the replay uses them."""
    marks = functools.partial(_last_greedy, actor.policy) if task.config.replay.cut_at_exploration else None
    return make_collector(task, actor, environments, greedy=marks)


def _last_greedy(policy: QuantilePolicy) -> Tensor:
    """Return which actions ``[N]`` of the last call were greedy."""
    if policy.last_greedy is None:
        raise RuntimeError("the policy has not acted yet")
    return policy.last_greedy.cpu()


def observing(network: QuantileNetwork, act: Act) -> Act:
    """Return ``act`` with an update of the network's running statistics before each call, if the network has any."""
    normalizer = next((module for module in network.modules() if isinstance(module, RunningNormalizer)), None)
    if normalizer is None:
        return act
    index = network.in_keys.index("observation")

    def update_and_act(*inputs: Tensor) -> Tensor:
        normalizer.update(inputs[index])
        return act(*inputs)

    return update_and_act


def _exploration(task: Task, policy: QuantilePolicy) -> list[Scheduled]:
    """Explore uniformly until the replay buffer is warm, then as ``iqn.exploration`` says."""
    exploration, warmup = task.config.iqn.exploration, task.config.replay.warmup_steps

    def epsilon(step: int) -> float:
        return 1.0 if step < warmup else value_at(exploration.epsilon, step)

    schedules = [Scheduled("epsilon", epsilon, lambda value: setattr(policy, "epsilon", value))]
    if isinstance(exploration, BoltzmannExploration):
        schedules += attributes(policy, temperature=exploration.temperature)
    return schedules
