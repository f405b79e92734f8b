"""``config import``, the network: from ``nn:`` and ``btr:`` of the seed system to ``nn:``."""

from __future__ import annotations

from typing import Any

from tesserl_configs.importer.heads import frozen_parts, mend_the_start, policy_heads, quantile_heads, transformer
from tesserl_configs.importer.source import Source


def import_network(source: Source) -> dict[str, Any]:
    """Return our ``nn:`` block; all algorithms except iqn have a policy and a value."""
    is_iqn = source.algorithm == "iqn"
    key = "nn.encoder.fusion_mode" if source.value("nn.fusion_mode") is None else "nn.fusion_mode"
    mode = source.take(key, "nn.fusion.kind", "none")
    vision = _vision(source, mode)
    fusion = {"kind": "none"} if mode == "none" else _fusion(source, mode, vision)
    network = {
        "vision": vision,
        "vector": _vector(source, fusion, classic=mode == "none" and vision["kind"] != "hf" and is_iqn),
        "fusion": fusion,
        "heads": quantile_heads(source) if is_iqn else policy_heads(source),
    }
    _mend_what_differs(source, vision, mode)
    mend_the_start(source)
    return {**network, "freeze": frozen_parts(source, network)}


def _mend_what_differs(source: Source, vision: dict[str, Any], mode: str) -> None:
    """Note differences of the seed system's networks that none of our keys can express."""
    if mode != "none" or vision["kind"] not in ("vit", "hf"):
        return
    if vision["kind"] == "hf":
        width = vision["out_features"]
        source.mend(
            "nn.vector.hidden_sizes",
            f"a linear layer of width {width} follows these layers there, and image and vector have {width} features "
            "each; here the vector keeps its width",
        )
    elif source.algorithm != "iqn":
        source.mend(
            "nn.vision.kind",
            "the seed system drops the image of a policy without fusion; here the encoder reads it: write none, or "
            "accept it",
        )
    else:
        source.mend("nn.vision.kind", "the seed system cannot build iqn with it and without fusion; here it can")


def _vision(source: Source, mode: str) -> dict[str, Any]:
    if source.take("nn.vis.no_image", "nn.vision.kind", False, "none without an image"):
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
        "pixel_range": "centered",
    }


def _cnn_option(source: Source, name: str, target: str, default: Any) -> Any:
    """Return a key of ``nn.vis.cnn``, or else of ``btr`` if the file has ``nn.vis.cnn`` or is of an older release."""
    own, other = f"nn.vis.cnn.{name}", f"btr.{name}"
    key = other if source.value(own) is None and (source.is_older or source.has("nn.vis.cnn")) else own
    return source.take(key, f"nn.vision.{target}", default)


def _vit(source: Source, mode: str) -> dict[str, Any]:
    block, target = "nn.vis.transformer", "nn.vision"
    # under unified the trunk reads the embedded patches
    layers = {"num_layers": 0} if mode == "unified" else transformer(source, block, target, num_layers=2, d_model=256)
    patch = source.take(f"{block}.patch_size", f"{target}.patch_size", 8)
    width = source.take(f"{block}.d_model", f"{target}.d_model", 256)
    return {"kind": "vit", "patch_size": patch, "d_model": width, **layers, "pixel_range": "centered"}


def _hf_vision(source: Source, mode: str) -> dict[str, Any]:
    block, target = "nn.vis.transformer", "nn.vision"
    reads_all = mode == "unified" or source.value(f"{block}.fusion_tokens") == "patch_tokens"
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
    raw = fusion["kind"] == "unified"
    if fusion.get("layout", {}).get("kind") == "token_sequence":
        raw = source.take("nn.encoder.float_token_input", "nn.vector.hidden_sizes", "raw", "raw: none") == "raw"
    width = 256
    if not raw:
        text = "two layers of this width"
        fused = fusion["kind"] != "none" and source.value("nn.encoder.mlp.hidden_dim") is not None
        key = "nn.encoder.mlp.hidden_dim" if fused else "nn.float.mlp.hidden_dim"
        width = source.take(key, "nn.vector.hidden_sizes", width, text)
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
            result["vision_features"] = 256  # fixed in the seed system
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
        return {"kind": kind, **transformer(source, "nn.encoder.transformer", path, num_layers=2, d_model=256)}
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
        own = source.value("nn.encoder.hf_embedding.model_name_or_path")
        block = "nn.encoder.hf_embedding" if own else "nn.encoder.transformer"
        return {"kind": kind, **_hf(source, block, path)}
    return {"kind": kind}


def _hf(source: Source, block: str, target: str) -> dict[str, Any]:
    return {
        "model": source.take(f"{block}.model_name_or_path", f"{target}.model", ""),
        "trust_remote_code": source.take(f"{block}.trust_remote_code", f"{target}.trust_remote_code", False),
        "dropout": source.take(f"{block}.hidden_dropout_prob", f"{target}.dropout", 0.0),
    }
