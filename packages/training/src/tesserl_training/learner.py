"""The gradient step that all loops share."""

import functools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.optim import Optimizer

from tesserl_ranks.group import Ranks
from tesserl_training.checkpoints.loading import require_optimizer_state


@runtime_checkable
class OptionalMetrics(Protocol):
    """A loss that can omit its metrics."""

    log_metrics: bool  # whether a call computes them


Reduce = Callable[[list[nn.Parameter], Mapping[str, Tensor], float], dict[str, Tensor]]
"""Replaces the gradients of this process's part of a batch by those of the whole batch, see `Ranks.reduce`."""


@dataclass
class Learner:
    """Takes gradient steps.

    Args:
        loss: module from a batch to a TensorDict; the sum of its entries named ``loss*`` is minimised.
        forward: the loss as a function, perhaps compiled or in another precision.
        parameters: trainable parameters of the networks.
        optimizer: optimiser of these parameters.
        max_grad_norm: global norm at which gradients are clipped; None does not clip.
        updated: called after every step with the number of updates so far; moves target networks and references.
        reduce: called between backward pass and clipping if other processes have parts of the batch.
        compiled: whether ``forward`` is compiled or recorded, which each change of the loss would repeat.
    """

    loss: nn.Module
    forward: Callable[[TensorDictBase], TensorDictBase | dict[Any, Tensor]]
    parameters: list[nn.Parameter]
    optimizer: Optimizer
    max_grad_norm: float | None
    updated: Callable[[int], None] = lambda updates: None  # noqa: ARG005
    reduce: Reduce | None = None
    compiled: bool = False

    def log_metrics(self, wanted: bool) -> None:
        """Say whether the metrics of the next updates are wanted; a loss that is not compiled then omits them.

        Args:
            wanted: False to omit them.
        """
        if isinstance(self.loss, OptionalMetrics) and not self.compiled:
            self.loss.log_metrics = wanted

    def update(
        self, batch: TensorDictBase, updates: int, lap: Callable[[str], None], weight: float = 1.0
    ) -> dict[str, Tensor]:
        """Take one gradient step.

        Args:
            batch: entries that the loss reads.
            updates: number of this step.
            lap: records the elapsed time under a name.
            weight: weight of this batch in ``reduce``, relative to the parts of other processes.

        Returns:
            All results of the loss and the norm of the gradient, as scalar tensors without gradient.
        """
        metrics = dict(self.forward(batch).items())
        total = functools.reduce(operator.add, (value for name, value in metrics.items() if name.startswith("loss")))
        lap("forward")
        for parameter in self.parameters:  # optimizer.zero_grad() costs as much as a layer
            parameter.grad = None
        total.backward()
        lap("backward")
        metrics = {name: value.detach() for name, value in metrics.items()}
        if self.reduce is not None:
            metrics = self.reduce(self.parameters, metrics, weight)
            lap("reduce")
        if self.max_grad_norm is not None:
            metrics["gradient_norm"] = nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm, foreach=True)
        self.optimizer.step()
        self.updated(updates)
        lap("optimiser")
        return metrics

    def share(self, ranks: Ranks) -> None:
        """Reduce gradients over ranks, each of which has a part of every batch; do nothing with one rank."""
        if ranks.number > 1:
            self.reduce = ranks.reduce

    @torch.no_grad()
    def evaluate(
        self, batch: TensorDictBase, prepare: Callable[[TensorDictBase], None] | None = None
    ) -> dict[str, Tensor]:
        """Return the metrics of the loss on a batch without learning; networks, noise and generators stay unchanged.

        Args:
            batch: entries that the loss reads; the loss may write into it.
            prepare: replaces entries of the batch first.
        """
        buffers = [(buffer, buffer.clone()) for buffer in self.loss.buffers()]
        devices = {buffer.device for buffer, _ in buffers} | {parameter.device for parameter in self.parameters}
        with torch.random.fork_rng([device for device in devices if device.type == "cuda"]):
            if prepare is not None:
                prepare(batch)
            metrics: dict[str, Tensor] = dict(self.loss(batch).items())
        for buffer, value in buffers:
            buffer.copy_(value)
        return metrics

    def load_optimizer(self, saved: Mapping[str, Any]) -> None:
        """Load the state of an optimiser.

        Args:
            saved: its state dict. Moments get the memory format of their parameter, which files do not store and
                fused kernels require.

        Raises:
            StorageError: the state belongs to another optimiser.
        """
        require_optimizer_state(self.optimizer, saved, "optimizer")
        self.optimizer.load_state_dict(dict(saved))
        for parameter, state in self.optimizer.state.items():
            for name, value in state.items():
                if value.shape == parameter.shape and value.stride() != parameter.stride():
                    state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
