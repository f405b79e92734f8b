"""``iqn:`` and a quantile network -> what acts and what learns."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tesserl_configs import RunConfig, value_at
from tesserl_iqn import IQNLoss, QuantileNetwork, QuantilePolicy
from tesserl_nn_components import RunningNormalizer
from tesserl_trainer.run.schedule import Scheduled
from tesserl_trainer.wiring.learning import Algorithm, build_optimizer, learning_rate_schedule
from tesserl_trainer.wiring.networks import learning_rate_groups


def build_iqn(config: RunConfig, network: QuantileNetwork) -> Algorithm:
    """Builds everything that surrounds a quantile network.

    Args:
        config: the whole configuration.
        network: what ``build_network`` returned, on its device.

    Raises:
        ConfigError: nothing is left to learn.
    """
    loss = _build_loss(config.iqn, network)
    learning_rate = value_at(config.optimizer.learning_rate, 0)
    groups = learning_rate_groups(network, config.nn.learning_rate_factors, learning_rate)
    optimizer = build_optimizer(config.optimizer, groups)
    policy = _build_policy(config, network)
    return Algorithm(
        saved=loss,
        loss=loss,
        forward=torch.compile(loss) if config.iqn.compile else loss,
        parameters=[parameter for parameter in network.parameters() if parameter.requires_grad],
        optimizer=optimizer,
        updated=target_updater(config.iqn.target_update, loss),
        policy=policy,
        act=observing(network.body, policy.act),
        schedules=[*_exploration(config, policy), learning_rate_schedule(config.optimizer, optimizer)],
    )


def _build_loss(iqn: Any, network: QuantileNetwork) -> IQNLoss:
    munchausen = {}
    if iqn.munchausen is not None:
        munchausen = {
            "munchausen_alpha": iqn.munchausen.alpha,
            "munchausen_temperature": iqn.munchausen.temperature,
            "munchausen_clip": iqn.munchausen.clip,
            "munchausen_log_policy": iqn.munchausen.log_policy,
        }
    return IQNLoss(
        network,
        discount=iqn.discount,
        num_taus=iqn.num_taus,
        num_target_taus=iqn.num_target_taus,
        num_policy_taus=iqn.num_policy_taus,
        double=iqn.double,
        kappa=iqn.kappa,
        tau_sampling=iqn.tau_sampling,
        **munchausen,
    )


def _build_policy(config: RunConfig, network: QuantileNetwork) -> QuantilePolicy:
    iqn = config.iqn
    return QuantilePolicy(
        network,
        num_taus=iqn.num_policy_taus,
        tau_sampling="midpoints" if iqn.policy_tau_sampling == "midpoint" else "uniform",
        risk=None if iqn.risk is None else (iqn.risk.kind, iqn.risk.eta),
        redraw_noise=config.nn.heads.noisy,
    )


def observing(body: Any, act: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``act``, preceded by an update of the body's running statistics where it has some."""
    normalizer = getattr(getattr(body, "vector", None), "normalizer", None)
    if not isinstance(normalizer, RunningNormalizer):
        return act
    index = body.in_keys.index("observation")

    def update_and_act(*inputs: Tensor) -> Tensor:
        normalizer.update(inputs[index])
        return act(*inputs)

    return update_and_act


def _exploration(config: RunConfig, policy: QuantilePolicy) -> list[Scheduled]:
    """Uniformly random until the replay buffer is warm, then as ``iqn.exploration`` says."""
    exploration, warmup = config.iqn.exploration, config.replay.warmup_steps

    def epsilon(step: int) -> float:
        return 1.0 if step < warmup else value_at(exploration.epsilon, step)

    schedules = [Scheduled("epsilon", epsilon, lambda value: setattr(policy, "epsilon", value))]
    if exploration.kind == "boltzmann":
        schedules.append(
            Scheduled(
                "temperature",
                lambda step: value_at(exploration.temperature, step),
                lambda value: setattr(policy, "temperature", value),
            )
        )
    return schedules


def target_updater(config: Any, loss: IQNLoss) -> Callable[[int], None]:
    """What moves the target network, called with the number of updates so far.

    The same arithmetic as torchrl's ``SoftUpdate`` and ``HardUpdate``, without their cost of half a small update.
    """
    for name in loss._has_update_associated:  # what torchrl's updaters tell a loss; it would warn of a missing one
        loss._has_update_associated[name] = True
    online = [parameter.data for parameter in loss.value_network.parameters()]
    target = [parameter.data for parameter in loss.target_value_network.parameters()]

    def update(updates: int) -> None:
        if updates % config.interval == 0:
            if config.kind == "soft":
                torch._foreach_lerp_(target, online, config.rate)
            else:
                torch._foreach_copy_(target, online)

    return update
