"""The rule about ``cuda_graph`` in the block of an algorithm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from tesserl_configs.errors import Problem
from tesserl_configs.run_keys import RunKeys


@runtime_checkable
class Graphed(Protocol):
    """Options with the keys ``cuda_graph`` and ``compile``."""

    cuda_graph: bool
    compile: bool


def graphs_can_be_recorded(config: RunKeys) -> Iterator[Problem]:
    """Check that a CUDA graph can be recorded: device cuda, no compile, an optimiser other than sgd, no memory."""
    options, block = config.options, config.algorithm
    if not isinstance(options, Graphed) or not options.cuda_graph:
        return
    key = f"{block}.cuda_graph"
    if not config.device.startswith("cuda"):
        yield Problem(key, f"needs device cuda, got {config.device}; set it to false")
    if options.compile:
        yield Problem(key, f"records what {block}.compile would compile; choose one of the two")
    if config.optimizer.kind == "sgd":
        yield Problem(key, "holds the optimiser too, which sgd does not allow; choose adam")
    if config.nn.memory.kind != "none":
        memory = config.nn.memory.kind
        yield Problem(key, f"does not record recurrent layers, and nn.memory has kind {memory}; set it to false")
