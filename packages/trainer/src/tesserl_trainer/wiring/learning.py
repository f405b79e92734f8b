"""What every algorithm is made of, and what all of them share: device, optimiser, learning rate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.optim import Optimizer

from tesserl_configs import ConfigError, RunConfig, value_at
from tesserl_nn_components import RunningNormalizer
from tesserl_trainer.run.schedule import Scheduled
from tesserl_trainer.wiring.parts import learning_rate_groups


@dataclass
class Algorithm:
    """A network with its loss, its optimiser and its ways to act.

    Args:
        saved: the module whose state dict a checkpoint keeps as ``networks``.
        loss: from a batch to a TensorDict with entries ``loss*``.
        forward: the loss, or its compiled form.
        parameters: those that learn.
        optimizer: over these parameters.
        updated: called after every gradient step with their number.
        policy: ``policy.act`` explores, ``with policy.greedy() as greedy: greedy.act`` does not.
        act: what the collector calls.
        schedules: hyper-parameters that change with the step.
    """

    saved: nn.Module
    loss: nn.Module
    forward: Callable[[TensorDictBase], TensorDictBase]
    parameters: list[nn.Parameter]
    optimizer: Optimizer
    updated: Callable[[int], None]
    policy: Any
    act: Callable[..., Tensor]
    schedules: list[Scheduled]

    def load_networks(self, state: Mapping[str, Tensor]) -> None:
        """Loads the networks of a checkpoint."""
        self.saved.load_state_dict(dict(state))


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


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "radam": torch.optim.RAdam,
    "sgd": torch.optim.SGD,
}


def optimizer_of(config: RunConfig, network: nn.Module, *, capturable: bool = False) -> Optimizer:
    """The optimiser of what learns in a network, at the learning rate of step 0.

    Args:
        config: the whole configuration.
        network: what ``build_network`` returned, on its device.
        capturable: see ``build_optimizer``.

    Raises:
        ConfigError: nothing is left to learn.
    """
    learning_rate = value_at(config.optimizer.learning_rate, 0)
    groups = learning_rate_groups(network, config.nn.learning_rate_factors, learning_rate)
    return build_optimizer(config.optimizer, groups, capturable=capturable)


def build_optimizer(config: Any, groups: list[dict[str, Any]], *, capturable: bool = False) -> Optimizer:
    """Builds an optimiser from an ``optimizer:`` block.

    Args:
        config: the block.
        groups: the parameters that it moves, with the learning rate of each group.
        capturable: for a CUDA graph: counters and learning rates are tensors on the device.
    """
    options = {
        name: getattr(config, name) for name in ("betas", "eps", "momentum", "weight_decay") if hasattr(config, name)
    }
    if config.kind in ("adam", "adamw"):  # one kernel instead of a dozen: a third of a small update
        options["fused"] = True
    if config.kind == "radam":
        options["decoupled_weight_decay"] = True  # as in the authors' code; torch's default adds it to the gradient
    if capturable:
        options["capturable"] = True
        groups = [{**group, "lr": torch.tensor(group["lr"], device=group["params"][0].device)} for group in groups]
    return OPTIMIZERS[config.kind](groups, **options)


def learning_rate_schedule(config: Any, optimizer: Optimizer) -> Scheduled:
    """The schedule of the optimiser's learning rate; the groups keep their factors."""

    def apply(value: float) -> None:
        for group in optimizer.param_groups:
            if isinstance(group["lr"], Tensor):  # a CUDA graph reads it where it is
                group["lr"].fill_(value * group["factor"])
            else:
                group["lr"] = value * group["factor"]

    return Scheduled("learning_rate", lambda step: value_at(config.learning_rate, step), apply)


def scheduled(name: str, schedule: Any, apply: Callable[[float], Any]) -> Scheduled:
    """A hyper-parameter of the schema, which may be a number or a schedule."""
    return Scheduled(name, lambda step: value_at(schedule, step), apply)


def forward_of(
    loss: nn.Module, *, precision: str, compiled: bool, device: str
) -> Callable[[TensorDictBase], TensorDictBase]:
    """The loss as a function: compiled where asked for, under autocast where the precision is bfloat16."""
    forward: Callable[[TensorDictBase], TensorDictBase] = torch.compile(loss) if compiled else loss
    if precision == "float32":
        return forward

    def under_autocast(batch: TensorDictBase) -> TensorDictBase:
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            return forward(batch)

    return under_autocast


def observing_rollouts(network: nn.Module) -> Callable[[TensorDictBase], None]:
    """What brings the running statistics of a network's observations up to date with a rollout ``[N, T]``."""
    statistics = [module for module in network.modules() if isinstance(module, RunningNormalizer)]

    def observe(rollout: TensorDictBase) -> None:
        for normalizer in statistics:
            normalizer.update(rollout["observation"].to(normalizer.mean.device))

    return observe
