"""``config import``, the heads: from ``nn.decoder:`` of the seed system to ``nn.heads:`` and ``nn.freeze:``."""

from __future__ import annotations

import math
from typing import Any

from tesserl_configs.importer.catalogue import WARM_STARTS
from tesserl_configs.importer.source import Source

PARTS = {
    "vision": "nn.vis.freeze",
    "vector": "nn.float.freeze",
    "fusion": "nn.encoder.freeze",
    "embedding": "nn.iqn.freeze",
    "shared": "nn.decoder.shared_trunk_freeze",
    "advantage": "nn.decoder.advantage.freeze",
    "value": "nn.decoder.value.freeze",
}
"""Our names of the parts that can be frozen -> the seed system's keys; it calls the policy's head advantage."""


def quantile_heads(source: Source) -> dict[str, Any]:
    """Return our ``heads:`` block of quantiles."""
    width = source.value("nn.decoder.dense_hidden_dimension", 1024)
    text = f"{width} / 2, in each stream without a width of its own"
    trunk = source.take("nn.decoder.dense_hidden_dimension", "nn.heads.hidden_sizes", 1024, text)
    streams = {name: _stream(source, name, trunk // 2) for name in ("advantage", "value")}
    heads: dict[str, Any] = {
        "activation": "leaky_relu",
        "dueling": True,
        "layer_norm": source.take("btr.use_layer_norm", "nn.heads.layer_norm", False),
        "noisy": source.take("btr.use_noisy_linear", "nn.heads.noisy", False, "explores by the noise"),
    }
    if streams["advantage"] == streams["value"] and streams["value"]["kind"] == "mlp":
        return {"hidden_sizes": streams["value"]["hidden_sizes"], **heads}
    return {**heads, **streams}


def _stream(source: Source, name: str, width: int) -> dict[str, Any]:
    block, target = f"nn.decoder.{name}", f"nn.heads.{name}"
    for key in ("transformer", "transformer_encoder"):
        if source.has(f"{block}.{key}"):
            options = transformer(source, f"{block}.{key}", target, num_layers=1, d_model=128)
            chunk = source.take(f"{block}.{key}.d_model", f"{target}.d_model", 128)
            return {"kind": "transformer", "d_model": chunk, **options, "hidden_features": width}
    hidden, number = (
        next((key for key in keys if source.value(f"{block}.mlp.{key}") is not None), keys[0])
        for keys in (("hidden_dim", "hidden"), ("n_hidden_layers", "layers"))
    )
    width = source.take(f"{block}.mlp.{hidden}", f"{target}.hidden_sizes", width)
    layers = source.take(f"{block}.mlp.{number}", f"{target}.hidden_sizes", 1, "as many layers")
    return {"kind": "mlp", "hidden_sizes": [width] * layers}


def policy_heads(source: Source) -> dict[str, Any]:
    """Return our ``heads:`` block of policy and value: two shared hidden layers, then a linear layer each."""
    target, text = "nn.heads.shared_hidden_sizes", "two layers of this width, which policy and value share"
    width = source.take("nn.decoder.dense_hidden_dimension", target, 1024, text)
    return {"hidden_sizes": [], "shared_hidden_sizes": [width] * 2}


def transformer(source: Source, block: str, target: str, *, num_layers: int, d_model: int) -> dict[str, Any]:
    """Return transformer options of the seed system, which has LayerNorm after each branch and mean pooling."""
    width = source.value(f"{block}.d_model", d_model)
    ratio = source.take(f"{block}.ff_mult", f"{target}.feedforward_ratio", 4)
    if width * ratio < 64:
        ratio = 64 / width if int(width * (64 / width)) == 64 else math.nextafter(64 / width, math.inf)
    return {
        "num_layers": source.take(f"{block}.n_layers", f"{target}.num_layers", num_layers),
        "num_heads": source.take(f"{block}.n_heads", f"{target}.num_heads", 4),
        "feedforward_ratio": ratio,
        "dropout": source.take(f"{block}.dropout", f"{target}.dropout", 0.0),
        "norm": "post",
    }


def frozen_parts(source: Source, network: dict[str, Any]) -> list[str]:
    """Return our ``freeze:`` list."""
    algorithm, names = source.algorithm, []
    for part, key in PARTS.items():
        missing = network.get(part, {}).get("kind") == "none"
        if part in ("embedding", "shared"):
            missing = (algorithm == "iqn") == (part == "shared")
        elif part == "value":
            missing = algorithm == "grpo"  # grpo has no value
        name = "policy" if part == "advantage" and algorithm != "iqn" else part
        if not missing and source.take(key, "nn.freeze", False, name):
            names.append(name)
    return names


def mend_the_start(source: Source) -> None:
    """Note initial weights of the seed system, which are not a run of ours."""
    keys = [f"training.pretrain_{key}" for key in WARM_STARTS]
    if source.algorithm != "iqn":
        keys = ["training.pretrain_ppo_policy_path"]
        if source.value("nn.fusion_mode", source.value("nn.encoder.fusion_mode", "none")) != "none":
            keys += ["nn.init_from_pretrained", "nn.encoder.init_from_pretrained"]
    for key in keys:
        if source.value(key):
            source.mend(
                "initial_weights",
                f"there training starts from {source.value(key)} ({source.name(key)}), which is not read here; write a "
                "run of Tesserl with this nn block, such as `tesserl pretrain` makes, or train from the start",
                key,
            )
