"""Gradient steps recorded as CUDA graphs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from tensordict import NestedKey, TensorDictBase
from torch import Tensor

from tesserl_policy import DirectLossModule
from tesserl_ranks.group import Ranks
from tesserl_training.learner import Learner

WARMUP = 3
"""Ordinary steps before a recording, in which kernels are selected and the optimiser creates its state."""
MAX_GRAPHS = 8
"""Most recordings that are kept; each one holds separate memory."""


@dataclass
class GraphedLearner(Learner):
    """A learner that records forward pass, backward pass, clipping and optimiser once, and replays them.

    With a small network, a GPU waits for Python, which launches hundreds of kernels per update. A CUDA graph launches
    all of them at once. Each shape of batches has its own recording, made when the shape occurs again after the first
    steps. Batches of other shapes take ordinary steps.

    The optimiser must be ``capturable`` and its learning rates must be tensors. Recordings read scheduled coefficients
    from buffers of the loss (`tesserl_policy.DirectLossModule`). ``updated`` is called outside of the graph.
    """

    _graphs: dict[Any, "_RecordedStep"] = field(default_factory=dict, init=False)
    _seen: dict[Any, int] = field(default_factory=dict, init=False)
    _steps: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Make the loss read its coefficients from buffers."""
        if isinstance(self.loss, DirectLossModule):
            self.loss.reads_buffers = True

    def update(
        self,
        batch: TensorDictBase,
        updates: int,
        lap: Callable[[str], None],
        weight: float = 1.0,  # noqa: ARG002 - one rank has the whole batch
    ) -> dict[str, Tensor]:
        """Take one gradient step, see `Learner.update`."""
        device = self.parameters[0].device
        with torch.get_device_module(device).device(device):  # streams and graphs belong to the current device
            shape = self._shape_of(batch)
            step = self._graphs.get(shape)
            if step is None and self._steps >= WARMUP and shape in self._seen:
                step = self._record(shape, batch)
            metrics = self._warm_up(batch) if step is None else step.replay(batch)
            self._seen[shape] = self._steps = self._steps + 1
        self.updated(updates)
        lap("optimiser")
        return metrics

    def share(self, ranks: Ranks) -> None:
        """Refuse several ranks: a graph does not reduce gradients over ranks.

        Raises:
            ValueError: there are several ranks.
        """
        if ranks.number > 1:
            raise ValueError(f"expected one rank with a CUDA graph, got {ranks.number}; set cuda_graph to false")

    def load_optimizer(self, saved: Mapping[str, Any]) -> None:
        """Load the state of an optimiser; move its learning rates back to the device."""
        super().load_optimizer(saved)
        for group in self.optimizer.param_groups:
            group["lr"] = torch.as_tensor(group["lr"], device=self.parameters[0].device)

    def _shape_of(self, batch: TensorDictBase) -> Any:
        """Return the key of a recording: names and shapes of the batch, and which coefficients are 0."""
        leaves = batch.items(include_nested=True, leaves_only=True)
        entries = tuple((key, tuple(leaf.shape), leaf.dtype) for key, leaf in leaves)
        return entries, self.loss.zero_coefficients if isinstance(self.loss, DirectLossModule) else ()

    def _warm_up(self, batch: TensorDictBase) -> dict[str, Tensor]:
        """Take an ordinary step on a separate stream, as recordings do."""
        module = torch.get_device_module(self.parameters[0].device)
        stream = module.Stream()
        stream.wait_stream(module.current_stream())
        with module.stream(stream):
            metrics = self._step(batch)
        module.current_stream().wait_stream(stream)
        return metrics

    def _record(self, shape: Any, batch: TensorDictBase) -> "_RecordedStep":
        """Record a step for batches of one shape; drop the oldest recording if there are too many."""
        while len(self._graphs) >= MAX_GRAPHS:
            del self._graphs[min(self._graphs, key=lambda each: self._seen[each])]
        for parameter in self.parameters:  # gradients allocated inside the recording are overwritten by each replay
            parameter.grad = None
        step = self._graphs[shape] = _RecordedStep(batch, self._step)
        return step

    def _step(self, batch: TensorDictBase) -> dict[str, Tensor]:
        """Take a step without the call of ``updated``."""
        return Learner(self.loss, self.forward, self.parameters, self.optimizer, self.max_grad_norm).update(
            batch, 0, lambda _: None
        )


class _RecordedStep:
    """A recorded step, not run while recording; its kernels read and write the memory of the recording."""

    def __init__(self, batch: TensorDictBase, step: Callable[[TensorDictBase], dict[str, Tensor]]) -> None:
        module = torch.get_device_module(next(iter(batch.values(include_nested=True, leaves_only=True))).device)
        self._batch = batch.clone()
        self._inputs: list[NestedKey] = list(batch.keys(include_nested=True, leaves_only=True))
        self._memory = [self._batch.get(key) for key in self._inputs]
        self._graph: Any = module.CUDAGraph()
        with module.graph(self._graph):
            metrics = step(self._batch)
            self._metrics = torch.stack([value.to(torch.float64) for value in metrics.values()])
        self._names = list(metrics)
        outputs = self._batch.keys(include_nested=True, leaves_only=True)
        self._outputs = [key for key in outputs if key not in self._inputs]  # entries written by the loss

    def replay(self, batch: TensorDictBase) -> dict[str, Tensor]:
        """Run the step with another batch; return its metrics."""
        torch._foreach_copy_(self._memory, [batch.get(key) for key in self._inputs])
        self._graph.replay()
        for key in self._outputs:
            batch.set(key, self._batch.get(key).clone())
        return dict(zip(self._names, self._metrics.clone().unbind(), strict=True))
