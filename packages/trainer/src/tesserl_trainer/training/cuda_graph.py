"""Gradient steps that a GPU repeats by itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

from tesserl_trainer.training.learner import Learner

WARMUP = 3
"""Steps before the recording: kernels are chosen and the optimiser makes its state."""


@dataclass
class GraphedLearner(Learner):
    """A learner that records forward pass, backward pass, clipping and optimiser once, and replays them.

    What a small network waits for on a GPU is Python, which launches hundreds of kernels for each update; a CUDA graph
    launches all of them at once. The optimiser must be ``capturable``, its learning rates tensors, and batches of one
    shape. ``updated`` is called as ever, outside of the graph.
    """

    _graph: torch.cuda.CUDAGraph | None = field(default=None, init=False)
    _warm: int = field(default=0, init=False)
    _batch: TensorDictBase | None = field(default=None, init=False)
    _metrics: dict[str, Tensor] = field(default_factory=dict, init=False)

    def update(
        self,
        batch: TensorDictBase,
        updates: int,
        lap: Callable[[str], None],
        weight: float = 1.0,  # noqa: ARG002 - one rank has the whole batch
    ) -> dict[str, Tensor]:
        """One gradient step, see `Learner.update`."""
        with torch.cuda.device(self.parameters[0].device):  # streams and graphs are those of the current device
            if self._warm < WARMUP:
                metrics = self._warm_up(batch)
            else:
                if self._graph is None:
                    self._record(batch)
                metrics = self._replay(batch)
            self.updated(updates)
        lap("optimiser")
        return metrics

    def load_optimizer(self, saved: Mapping[str, Any]) -> None:
        """Continues with the state of an optimiser, its learning rates on the device again."""
        super().load_optimizer(saved)
        for group in self.optimizer.param_groups:
            group["lr"] = torch.as_tensor(group["lr"], device=self.parameters[0].device)

    def _warm_up(self, batch: TensorDictBase) -> dict[str, Tensor]:
        """Take an ordinary step on a separate stream, as recordings do."""
        self._warm += 1
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call] # torch leaves it untyped
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            metrics = self._step(batch)
        torch.cuda.current_stream().wait_stream(stream)
        return metrics

    def _record(self, batch: TensorDictBase) -> None:
        """Record a step, which does not run it: kernels will read and write the memory that they see now."""
        self._batch = batch.clone()
        self._graph = torch.cuda.CUDAGraph()
        for parameter in self.parameters:  # gradients made inside of the recording are overwritten by each replay
            parameter.grad = None
        with torch.cuda.graph(self._graph):
            self._metrics = self._step(self._batch)

    def _replay(self, batch: TensorDictBase) -> dict[str, Tensor]:
        if self._batch is None or self._graph is None:
            raise RuntimeError("there is no recorded step to replay; record one first")
        self._batch.update_(batch)
        self._graph.replay()
        batch["td_error"] = self._batch["td_error"].clone()
        return {name: value.clone() for name, value in self._metrics.items()}

    def _step(self, batch: TensorDictBase) -> dict[str, Tensor]:
        """Take a step without the work that follows it."""
        return Learner(self.loss, self.forward, self.parameters, self.optimizer, self.max_grad_norm).update(
            batch, 0, lambda _: None
        )
