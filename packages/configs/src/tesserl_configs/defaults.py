"""Defaults that depend on the algorithm; they stand in for the schema's own where a file is silent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ADAM_KINDS = ("adam", "adamw", "radam")

OPTIMIZER: dict[str, dict[str, Any]] = {
    "ppo": {"learning_rate": 2.5e-4, "eps": 1e-5},  # CleanRL
    "grpo": {"learning_rate": 2.5e-4, "eps": 1e-5},  # those of ppo
    "dpo": {"learning_rate": 1e-4, "eps": 1e-8},  # CPL's code, torch
    "cpl": {"learning_rate": 1e-4, "eps": 1e-8},  # CPL's code, torch
}
"""Keys of an optimizer of the Adam family, by algorithm."""

HIDDEN_SIZES: dict[str, tuple[int, ...]] = {
    "ppo": (),  # CleanRL: linear heads on the features
    "grpo": (),
    "dpo": (),
    "cpl": (),
}
"""nn.heads.hidden_sizes by algorithm."""


def with_defaults(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a file with the defaults of its algorithm filled in.

    Args:
        data: the data of a whole file; what is written there stays.
    """
    result, algorithm = dict(data), str(data.get("algorithm"))
    if algorithm in OPTIMIZER:
        optimizer = data.get("optimizer", {"kind": "adam"})
        if isinstance(optimizer, dict) and optimizer.get("kind") in ADAM_KINDS:
            result["optimizer"] = {**OPTIMIZER[algorithm], **optimizer}
    replay, iqn = data.get("replay"), data.get("iqn", {})
    if isinstance(replay, dict) and replay.get("ratio") is not None and isinstance(iqn, dict):
        result["iqn"] = {"update_interval": None, **iqn}  # the other way to say how much is learned
    nn = data.get("nn")
    if algorithm in HIDDEN_SIZES and isinstance(nn, dict) and isinstance(nn.get("heads", {}), dict):
        result["nn"] = {**nn, "heads": {"hidden_sizes": HIDDEN_SIZES[algorithm], **nn.get("heads", {})}}
    return result
