"""``config import``, the optimiser: from ``training:`` of the seed system to ``optimizer:``."""

from __future__ import annotations

from typing import Any

from tesserl_configs.importer.source import Source, scheduled


def import_optimizer(source: Source, *, batch_size: int = 1, weight_decay: float = 0.0) -> dict[str, Any]:
    """Return our ``optimizer`` block; the seed system's loss may be a sum over ``batch_size``."""
    default = [[0, 1e-3], [3_000_000, 5e-5], [12_000_000, 5e-5], [15_000_000, 1e-5]]
    text = f"/ {batch_size}: its loss is a sum over the batch" if batch_size > 1 else ""
    if weight_decay:
        weight_decay = source.take("training.weight_decay_lr_ratio", "optimizer.weight_decay", weight_decay)
    return {
        "kind": "radam",
        "learning_rate": scheduled(source, "training.lr_schedule", "optimizer.learning_rate", default),
        "eps": source.take("training.adam_epsilon", "optimizer.eps", 1e-4, text) / batch_size,
        "betas": [
            source.take("training.adam_beta1", "optimizer.betas", 0.9),
            source.take("training.adam_beta2", "optimizer.betas", 0.999),
        ],
        "weight_decay": weight_decay,
    }
