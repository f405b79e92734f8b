"""Defaults that depend on the algorithm; they replace the schema's for keys that a file does not set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tesserl_configs.algorithms import find

ADAM_KINDS = ("adam", "adamw", "radam")


def with_defaults(data: Mapping[str, Any]) -> dict[str, Any]:
    """Fill the defaults of the algorithm into keys that the data of a file do not set."""
    result, algorithm = dict(data), find(data.get("algorithm"))
    if algorithm is not None and algorithm.optimizer:
        optimizer = data.get("optimizer", {"kind": algorithm.optimizer_kind})
        if isinstance(optimizer, dict) and optimizer.get("kind") in ADAM_KINDS:
            result["optimizer"] = {**algorithm.optimizer, **optimizer}
    replay, iqn = data.get("replay"), data.get("iqn", {})
    if isinstance(replay, dict) and replay.get("ratio") is not None and isinstance(iqn, dict):
        result["iqn"] = {"update_interval": None, **iqn}  # replay.ratio sets the pace instead
    nn = data.get("nn")
    hidden_sizes = None if algorithm is None else algorithm.hidden_sizes
    if hidden_sizes is not None and isinstance(nn, dict) and isinstance(nn.get("heads", {}), dict):
        result["nn"] = {**nn, "heads": {"hidden_sizes": hidden_sizes, **nn.get("heads", {})}}
    return result
