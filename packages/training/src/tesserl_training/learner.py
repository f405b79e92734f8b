"""One gradient step, the same for every loop."""

import functools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.optim import Optimizer

from tesserl_ranks.group import Ranks
from tesserl_training.checkpoints.loading import require_optimizer_state

Reduce = Callable[[list[nn.Parameter], Mapping[str, Tensor], float], dict[str, Tensor]]
"""Replaces gradients by those of a whole batch of which other processes have parts, see `Ranks.reduce`."""


@dataclass
class Learner:
    """Parts of one gradient step.

    Args:
        loss: module from a batch to a TensorDict; the entries whose names begin with ``loss`` are added up.
        forward: the loss as a function, perhaps compiled or in another precision.
        parameters: of the networks, those that learn.
        optimizer: over these parameters.
        max_grad_norm: global norm at which gradients are clipped; ``None`` leaves them.
        updated: called after every step with the number of updates so far: moves target networks and references.
        reduce: called between backward and clipping if other processes have parts of the batch.
    """

    loss: nn.Module
    forward: Callable[[TensorDictBase], TensorDictBase | dict[Any, Tensor]]
    parameters: list[nn.Parameter]
    optimizer: Optimizer
    max_grad_norm: float | None
    updated: Callable[[int], None] = lambda updates: None  # noqa: ARG005
    reduce: Reduce | None = None

    def update(
        self, batch: TensorDictBase, updates: int, lap: Callable[[str], None], weight: float = 1.0
    ) -> dict[str, Tensor]:
        """One gradient step.

        Args:
            batch: what the loss reads.
            updates: number of this step.
            lap: books time to a name.
            weight: of this batch in ``reduce``, relative to the parts that other processes have.

        Returns:
            Everything the loss returned and the norm of the gradient, as scalar tensors without gradient.
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
        """Learn from batches of which each rank has a part; does nothing with one rank."""
        if ranks.number > 1:
            self.reduce = ranks.reduce

    @torch.no_grad()
    def evaluate(
        self, batch: TensorDictBase, prepare: Callable[[TensorDictBase], None] | None = None
    ) -> dict[str, Tensor]:
        """Return the metrics of the loss on a batch without learning; networks, noise and generators stay unchanged.

        Args:
            batch: what the loss reads; it writes into it as ever.
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
        """Continues with the state of an optimiser.

        Args:
            saved: its state dict. Files keep no memory format, and fused kernels take for granted that a parameter and
                its moments lie alike.

        Raises:
            StorageError: it is the state of another optimiser.
        """
        require_optimizer_state(self.optimizer, saved, "optimizer")
        self.optimizer.load_state_dict(dict(saved))
        for parameter, state in self.optimizer.state.items():
            for name, value in state.items():
                if value.shape == parameter.shape and value.stride() != parameter.stride():
                    state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
