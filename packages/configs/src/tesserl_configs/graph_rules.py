"""The rule about ``cuda_graph`` in the block of an algorithm."""

from __future__ import annotations

from collections.abc import Iterator

from tesserl_configs.errors import Problem
from tesserl_configs.run_keys import RunKeys


def check_graph(config: RunKeys, *, graphed: bool, compiled: bool) -> Iterator[Problem]:
    """Check that a CUDA graph has a CUDA device, an optimiser that can be recorded, and no memory.

    Args:
        config: of the run.
        graphed: ``cuda_graph`` of the algorithm's block.
        compiled: its ``compile``.
    """
    if not graphed:
        return
    block = config.algorithm
    key = f"{block}.cuda_graph"
    if not config.device.startswith("cuda"):
        yield Problem(key, f"needs device cuda, got {config.device}; set it to false")
    if compiled:
        yield Problem(key, f"records what {block}.compile would compile; choose one of the two")
    if config.optimizer.kind == "sgd":
        yield Problem(key, "holds the optimiser too, which sgd does not allow; choose adam")
    if config.nn.memory.kind != "none":
        memory = config.nn.memory.kind
        yield Problem(key, f"does not record recurrent layers, and nn.memory has kind {memory}; set it to false")
