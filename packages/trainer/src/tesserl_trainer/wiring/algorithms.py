"""``iqn:`` and ``optimizer:`` and a network -> what acts and what learns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.optim import Optimizer

from tesserl_configs import ConfigError, RunConfig, value_at
from tesserl_iqn import IQNLoss, QuantileNetwork, QuantilePolicy
from tesserl_nn_components import RunningNormalizer
from tesserl_trainer.run.schedule import Scheduled
from tesserl_trainer.wiring.networks import learning_rate_groups


@dataclass
class Algorithm:
    """A network with its loss, its optimiser and its ways to act: ``act`` collects, ``policy`` evaluates."""

    loss: IQNLoss
    forward: Callable[[TensorDictBase], TensorDictBase]
    parameters: list[nn.Parameter]
    optimizer: Optimizer
    update_target: Callable[[int], None]
    policy: QuantilePolicy
    act: Callable[..., Tensor]
    schedules: list[Scheduled]

    def load_networks(self, state: Mapping[str, Tensor]) -> None:
        """Loads the networks of a checkpoint."""
        self.loss.load_state_dict(dict(state))


def build_algorithm(config: RunConfig, network: nn.Module) -> Algorithm:
    """Builds everything that surrounds a network.

    Args:
        config: the whole configuration.
        network: what ``build_network`` returned; it is moved to the device.

    Raises:
        ConfigError: the device is not there, or nothing is left to learn.
    """
    if not isinstance(network, QuantileNetwork):
        raise TypeError(f"iqn needs a QuantileNetwork, got {type(network).__name__}")
    network.to(device_of(config.device))
    loss = _build_loss(config.iqn, network)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    learning_rate = value_at(config.optimizer.learning_rate, 0)
    groups = learning_rate_groups(network, config.nn.learning_rate_factors, learning_rate)
    optimizer = build_optimizer(config.optimizer, groups)
    policy = _build_policy(config, network)
    return Algorithm(
        loss=loss,
        forward=torch.compile(loss) if config.iqn.compile else loss,
        parameters=parameters,
        optimizer=optimizer,
        update_target=target_updater(config.iqn.target_update, loss),
        policy=policy,
        act=observing(network.body, policy.act),
        schedules=[*_exploration(config, policy), _learning_rate(config.optimizer, optimizer)],
    )


def device_of(name: str) -> torch.device:
    """The device of that name.

    Raises:
        ConfigError: this machine does not have it.
    """
    device = torch.device(name)
    if device.type == "cuda" and not (torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()):
        raise ConfigError(
            f"device: {name} is not there (torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices); "
            "set device to cpu"
        )
    return device


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


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "radam": torch.optim.RAdam,
    "sgd": torch.optim.SGD,
}


def build_optimizer(config: Any, groups: list[dict[str, Any]]) -> Optimizer:
    """Builds an optimiser from an ``optimizer:`` block.

    Args:
        config: the block.
        groups: the parameters that it moves, with the learning rate of each group.
    """
    options = {
        name: getattr(config, name) for name in ("betas", "eps", "momentum", "weight_decay") if hasattr(config, name)
    }
    if config.kind in ("adam", "adamw"):  # one kernel instead of a dozen: a third of a small update
        options["fused"] = True
    if config.kind == "radam":
        options["decoupled_weight_decay"] = True  # as in the authors' code; torch's default adds it to the gradient
    return OPTIMIZERS[config.kind](groups, **options)


def _learning_rate(config: Any, optimizer: Optimizer) -> Scheduled:
    def apply(value: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = value * group["factor"]

    return Scheduled("learning_rate", lambda step: value_at(config.learning_rate, step), apply)


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
