"""``iqn:`` and a quantile network -> what acts and what learns."""

from collections.abc import Callable
from typing import Any, cast

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.optim import Optimizer

from tesserl_configs import RunConfig, value_at
from tesserl_iqn import IQNLoss, QuantileNetwork, QuantilePolicy, end_at_horizon, sample_clock, shrink_and_perturb
from tesserl_nn_components import RunningNormalizer, SpectralConv2d, random_crop
from tesserl_trainer.run.schedule import Scheduled
from tesserl_trainer.wiring.learning import Algorithm, forward_of, learning_rate_schedule, optimizer_of


def build_iqn(config: RunConfig, network: QuantileNetwork, fresh: Callable[[], nn.Module] | None = None) -> Algorithm:
    """Builds everything that surrounds a quantile network.

    Args:
        config: the whole configuration.
        network: what ``build_network`` returned, on its device.
        fresh: makes another one like it, for ``iqn.reset``; None where nothing is trained.

    Raises:
        ConfigError: nothing is left to learn.
    """
    iqn = config.iqn
    loss = _build_loss(iqn, network)
    forward = forward_of(loss, precision=iqn.precision, compiled=iqn.compile, device=config.device)
    optimizer = optimizer_of(config, network, capturable=iqn.cuda_graph)
    policy = _build_policy(config, network)
    updated = target_updater(iqn.target_update, loss)
    if iqn.reset is not None and fresh is not None:
        updated = resetting(updated, iqn.reset, loss, fresh, optimizer)
    return Algorithm(
        saved=loss,
        loss=loss,
        forward=preparing(forward, _preparations(iqn)),
        parameters=[parameter for parameter in network.parameters() if parameter.requires_grad],
        optimizer=optimizer,
        updated=updated,
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
        self_loss_clamp_ratio=iqn.self_loss_clamp_ratio,
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
        explore_per_block=iqn.exploration.per_block,
        mark_greedy=config.replay.cut_at_exploration,
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
    networks = loss.value_network, loss.target_value_network
    online, target = ([parameter.data for parameter in network.parameters()] for network in networks)
    online_vectors, target_vectors = (_singular_vectors(network) for network in networks)

    def update(updates: int) -> None:
        if updates % config.interval == 0:
            if config.kind == "soft":
                torch._foreach_lerp_(target, online, config.rate)
            else:
                # without the vectors its first passes would divide by singular values of the weights before
                torch._foreach_copy_(target + target_vectors, online + online_vectors)

    return update


def _singular_vectors(network: nn.Module) -> list[Tensor]:
    """Those of all layers under spectral norm."""
    layers = [module for module in network.modules() if isinstance(module, SpectralConv2d)]
    return [vector for layer in layers for vector in (layer.u, layer.v)]


def resetting(
    updated: Callable[[int], None],
    config: Any,
    loss: IQNLoss,
    fresh: Callable[[], nn.Module],
    optimizer: Optimizer,
) -> Callable[[int], None]:
    """``updated``, followed every ``interval`` updates by a partial reset of both networks.

    Args:
        updated: called with the number of updates so far.
        config: the ``reset:`` block.
        loss: holds the networks.
        fresh: makes another network like them; its weights are drawn from torch's global generator.
        optimizer: of the online network.
    """

    def update_and_reset(updates: int) -> None:
        updated(updates)
        if updates % config.interval == 0:
            shrink_and_perturb(
                (loss.value_network, loss.target_value_network),
                cast("QuantileNetwork", fresh()),
                factor=config.factor,
                last_layer_factor=config.last_layer_factor,
                optimizer=optimizer,
            )

    return update_and_reset


def preparing(
    forward: Callable[[TensorDictBase], TensorDictBase], steps: list[Callable[[TensorDictBase], None]]
) -> Callable[[TensorDictBase], TensorDictBase]:
    """``forward`` on batches that were changed for learning; what was drawn from the buffer stays as it is.

    Args:
        forward: reads a batch and writes its ``td_error`` into it.
        steps: each replaces entries of a shallow copy of the batch.
    """
    if not steps:
        return forward

    def prepare_and_forward(batch: TensorDictBase) -> TensorDictBase:
        prepared = batch.copy()
        for step in steps:
            step(prepared)
        result = forward(prepared)
        batch["td_error"] = prepared["td_error"]
        return result

    return prepare_and_forward


def _preparations(iqn: Any) -> list[Callable[[TensorDictBase], None]]:
    steps: list[Callable[[TensorDictBase], None]] = []
    if iqn.fixed_horizon is not None:
        settings = iqn.fixed_horizon
        steps.append(lambda batch: set_clock(batch, settings.steps, settings.start_fraction))
    if iqn.random_crop is not None:
        steps.append(lambda batch: crop(batch, iqn.random_crop))
    return steps


def crop(batch: TensorDictBase, padding: int) -> None:
    """Shifts images at random, those of a transition's two ends by draws of their own."""
    for key in ("pixels", ("next", "pixels")):
        batch[key] = random_crop(batch[key], padding)


def set_clock(batch: TensorDictBase, horizon: int, start_fraction: float) -> None:
    """Puts each transition at a random place of the horizon: its clock is the first feature of ``observation``.

    Args:
        batch: ``[B]``, with ``partial_returns``, as ``NStepWindow`` keeps them.
        horizon: steps that a value looks ahead.
        start_fraction: probability of clock 0 beside its share of the rest.
    """
    partial_returns = batch["partial_returns"]
    clock = sample_clock(len(batch), horizon, start_fraction=start_fraction, device=partial_returns.device)
    reward, steps, terminated, later = end_at_horizon(
        partial_returns,
        batch["steps_to_next_obs"].squeeze(-1),
        batch["next", "terminated"].squeeze(-1),
        clock,
        horizon,
    )
    for key, value in (("observation", clock), (("next", "observation"), later)):
        observation = batch[key].clone()
        observation[:, 0] = value / horizon
        batch[key] = observation
    for key, value in (
        (("next", "reward"), reward),
        (("next", "terminated"), terminated),
        ("steps_to_next_obs", steps),
    ):
        batch[key] = value.unsqueeze(-1)
