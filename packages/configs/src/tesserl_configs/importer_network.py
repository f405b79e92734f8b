"""``config import``, the network: from ``nn:`` and ``btr:`` of the seed system to ``nn:``."""

from __future__ import annotations

from typing import Any

from tesserl_configs.algorithms import find
from tesserl_configs.importer_source import Source

PARTS = {
    "vision": "nn.vis.freeze",
    "vector": "nn.float.freeze",
    "fusion": "nn.encoder.freeze",
    "embedding": "nn.iqn.freeze",
    "advantage": "nn.decoder.advantage.freeze",
    "value": "nn.decoder.value.freeze",
}
"""Our names of the parts that can be frozen -> the seed system's keys; the head of a policy is its advantage."""


def import_network(source: Source, algorithm: str) -> dict[str, Any]:
    """Our ``nn:`` block.

    Args:
        source: the seed system's file.
        algorithm: what it trains; all but iqn have a policy and a value.
    """
    key = "nn.fusion_mode" if source.leaves.get("nn.fusion_mode") else "nn.encoder.fusion_mode"
    mode = source.take(key, "nn.fusion.kind", "none")
    vision = _vision(source, mode)
    fusion = {"kind": "none"} if mode == "none" else _fusion(source, mode, vision)
    network = {
        "vision": vision,
        "vector": _vector(source, fusion, classic=mode == "none" and vision["kind"] != "hf" and algorithm == "iqn"),
        "fusion": fusion,
        "heads": _heads(source) if algorithm == "iqn" else _policy_heads(source),
    }
    return {**network, "freeze": _frozen(source, network, algorithm)}


def _vision(source: Source, mode: str) -> dict[str, Any]:
    if source.take("nn.vis.no_image", "nn.vision.kind", False, "none if true"):
        return {"kind": "none"}
    if source.has("nn.vis.transformer"):
        if source.take("nn.vis.transformer.use_hf_backbone", "nn.vision.kind", False, "hf if true, else vit"):
            return _hf_vision(source, mode)
        return _vit(source, mode)
    if _cnn_option(source, "use_impala_cnn", "kind", False):
        stack = {"kind": "impala", "width": _cnn_option(source, "impala_model_size", "width", 2)}
    else:
        stack = {"kind": "cnn", "preset": "compact", "activation": "leaky_relu"}
    pools = _cnn_option(source, "use_adaptive_maxpool", "pool_size", False)
    return {
        **stack,
        "pool_size": _cnn_option(source, "adaptive_maxpool_size", "pool_size", 6) if pools else None,
        "spectral_norm": "all" if _cnn_option(source, "use_spectral_norm", "spectral_norm", False) else "none",
        "pixel_range": "symmetric",
    }


def _cnn_option(source: Source, name: str, target: str, default: Any) -> Any:
    """A key of ``nn.vis.cnn``; ``btr`` fills it only where that block stands in the file."""
    own, other = f"nn.vis.cnn.{name}", f"btr.{name}"
    key = other if source.leaves.get(own) is None and source.has("nn.vis.cnn") else own
    return source.take(key, f"nn.vision.{target}", default)


def _vit(source: Source, mode: str) -> dict[str, Any]:
    block, target = "nn.vis.transformer", "nn.vision"
    # under unified the trunk reads the embedded patches
    layers = {"num_layers": 0} if mode == "unified" else _transformer(source, block, target, 2)
    patch = source.take(f"{block}.patch_size", f"{target}.patch_size", 8)
    width = source.take(f"{block}.d_model", f"{target}.d_model", 256)
    return {"kind": "vit", "patch_size": patch, "d_model": width, **layers, "pixel_range": "symmetric"}


def _hf_vision(source: Source, mode: str) -> dict[str, Any]:
    block, target = "nn.vis.transformer", "nn.vision"
    reads_all = mode == "unified" or source.leaves.get(f"{block}.fusion_tokens") == "patch_tokens"
    vision = {
        "kind": "hf",
        **_hf(source, block, target),
        "out_features": source.take(f"{block}.d_model", f"{target}.out_features", 256),
        "pooling": "mean" if reads_all else "cls",
    }
    if mode == "unified":
        return vision
    layers = source.take(f"{block}.n_layers", f"{target}.refine_layers", 2, "over all tokens")
    return {
        **vision,
        "refine_layers": layers,
        "refine_heads": source.take(f"{block}.n_heads", f"{target}.refine_heads", 4),
    }


def _vector(source: Source, fusion: dict[str, Any], *, classic: bool) -> dict[str, Any]:
    width = source.take("nn.float.mlp.hidden_dim", "nn.vector.hidden_sizes", 256, "two layers of this width")
    if fusion["kind"] != "none":
        width = source.take("nn.encoder.mlp.hidden_dim", "nn.vector.hidden_sizes", width, "two layers of this width")
    raw = fusion["kind"] == "unified"
    if fusion.get("layout", {}).get("kind") == "token_sequence":
        raw = source.take("nn.encoder.float_token_input", "nn.vector.hidden_sizes", "raw", "raw: none") == "raw"
    layer_norm = classic and bool(source.take("btr.use_layer_norm", "nn.vector.layer_norm", False))
    return {
        "kind": "mlp",
        "hidden_sizes": [] if raw else [width] * 2,
        "activation": "leaky_relu" if classic else "relu",
        "layer_norm": layer_norm,
    }


def _fusion(source: Source, mode: str, vision: dict[str, Any]) -> dict[str, Any]:
    take = source.take
    trunk = _trunk(source, mode)
    result: dict[str, Any] = {
        "kind": mode,
        "out_features": take("nn.decoder.dense_hidden_dimension", "nn.fusion.out_features", 1024),
        "trunk": trunk,
    }
    if mode != "vision_transformer" or trunk["kind"] != "linear":
        result["d_model"] = take("nn.encoder.transformer.d_model", "nn.fusion.d_model", 256)
    if mode == "unified":
        tokens = take("nn.encoder.transformer.unified_float_tokens", "nn.fusion.num_vector_tokens", 1)
        return {**result, "num_vector_tokens": tokens}
    if mode == "vision_transformer":
        if vision["kind"] in ("cnn", "impala"):
            result["vision_features"] = 256  # there, whatever the file says
        if trunk["kind"] != "linear":
            result["num_tokens"] = take("nn.encoder.transformer.post_concat_seq_len", "nn.fusion.num_tokens", 4)
        return result
    return {**result, "layout": _layout(source)}


def _layout(source: Source) -> dict[str, Any]:
    take, path = source.take, "nn.fusion.layout"
    kind = take("nn.encoder.post_concat_layout", f"{path}.kind", "fused_vector")
    if kind == "fused_vector":
        return {"kind": kind, "num_tokens": take("nn.encoder.transformer.post_concat_seq_len", f"{path}.num_tokens", 4)}
    tokens = {"kind": take("nn.encoder.float_token_layout", f"{path}.vector_tokens.kind", "dense")}
    if tokens["kind"] == "dense":
        target = f"{path}.vector_tokens.num_tokens"
        tokens["num_tokens"] = take("nn.encoder.transformer.unified_float_tokens", target, 1)
    image = take("nn.vis.transformer.fusion_tokens", f"{path}.image_tokens", "summary", "all for patch_tokens")
    return {"kind": kind, "image_tokens": "all" if image == "patch_tokens" else "summary", "vector_tokens": tokens}


def _trunk(source: Source, mode: str) -> dict[str, Any]:
    take, path = source.take, "nn.fusion.trunk"
    hf = take("nn.encoder.transformer.use_hf_backbone", f"{path}.kind", False)
    inferred = "hf_embedding" if hf else "linear" if mode == "vision_transformer" else "native_transformer"
    kind = take("nn.encoder.fusion_encoder", f"{path}.kind", inferred)
    if kind == "native_transformer":
        return {"kind": kind, **_transformer(source, "nn.encoder.transformer", path, 2)}
    if kind == "mlp":
        width = take("nn.encoder.fusion_mlp.hidden_dim", f"{path}.hidden_sizes", 512)
        layers = take("nn.encoder.fusion_mlp.n_layers", f"{path}.hidden_sizes", 2, "the last layer is not counted")
        dropout = take("nn.encoder.fusion_mlp.dropout", f"{path}.dropout", 0.0)
        return {"kind": kind, "hidden_sizes": [width] * (layers - 1), "dropout": dropout}
    if kind == "cnn":
        return {
            "kind": kind,
            "channels": take("nn.encoder.fusion_cnn.hidden_channels", f"{path}.channels", [256, 256]),
            "kernel_size": take("nn.encoder.fusion_cnn.kernel_size", f"{path}.kernel_size", 3),
            "dropout": take("nn.encoder.fusion_cnn.dropout", f"{path}.dropout", 0.0),
        }
    if kind == "hf_embedding":
        own = source.leaves.get("nn.encoder.hf_embedding.model_name_or_path")
        block = "nn.encoder.hf_embedding" if own else "nn.encoder.transformer"
        return {"kind": kind, **_hf(source, block, path)}
    return {"kind": kind}


def _transformer(source: Source, block: str, target: str, num_layers: int) -> dict[str, Any]:
    """Transformer layers, those of the seed system: LayerNorm after each branch, the mean of the tokens."""
    return {
        "num_layers": source.take(f"{block}.n_layers", f"{target}.num_layers", num_layers),
        "num_heads": source.take(f"{block}.n_heads", f"{target}.num_heads", 4),
        "feedforward_ratio": source.take(f"{block}.ff_mult", f"{target}.feedforward_ratio", 4),
        "dropout": source.take(f"{block}.dropout", f"{target}.dropout", 0.0),
        "norm": "post",
    }


def _hf(source: Source, block: str, target: str) -> dict[str, Any]:
    return {
        "model": source.take(f"{block}.model_name_or_path", f"{target}.model", ""),
        "trust_remote_code": source.take(f"{block}.trust_remote_code", f"{target}.trust_remote_code", False),
        "dropout": source.take(f"{block}.hidden_dropout_prob", f"{target}.dropout", 0.0),
    }


def _heads(source: Source) -> dict[str, Any]:
    trunk = source.take(
        "nn.decoder.dense_hidden_dimension", "nn.heads.hidden_sizes", 1024, "half of it, where a stream has no width"
    )
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
            options = _transformer(source, f"{block}.{key}", target, 1)
            chunk = source.take(f"{block}.{key}.d_model", f"{target}.d_model", 128)
            return {"kind": "transformer", "d_model": chunk, **options, "hidden_features": width}
    layers = 1
    for key in ("hidden", "hidden_dim"):
        width = source.take(f"{block}.mlp.{key}", f"{target}.hidden_sizes", width)
    for key in ("layers", "n_hidden_layers"):
        layers = source.take(f"{block}.mlp.{key}", f"{target}.hidden_sizes", layers, "so many of them")
    return {"kind": "mlp", "hidden_sizes": [width] * layers}


def _policy_heads(source: Source) -> dict[str, Any]:
    text = "two layers of this width in each head; the seed system's heads share them"
    width = source.take("nn.decoder.dense_hidden_dimension", "nn.heads.hidden_sizes", 1024, text)
    return {"hidden_sizes": [width] * 2}


def _frozen(source: Source, network: dict[str, Any], algorithm: str) -> list[str]:
    names = []
    for part, key in PARTS.items():
        missing = network.get(part, {}).get("kind") == "none"
        if part == "embedding":
            missing = algorithm != "iqn"
        elif part == "value":
            declared = find(algorithm)
            missing = declared is not None and not declared.has_value
        name = "policy" if part == "advantage" and algorithm != "iqn" else part
        if not missing and source.take(key, "nn.freeze", False, name):
            names.append(name)
    return names
