"""Rules between the keys of ``nn:``, one function each, without those that need sizes of observations."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tesserl_configs.algorithms import Algorithm, declared
from tesserl_configs.errors import Problem
from tesserl_configs.fusion import DenseTokens
from tesserl_configs.nn import HeadsConfig, MLPStream, NNConfig
from tesserl_configs.vision import PRESETS, HFVision, ViTVision

NetworkRule = Callable[[NNConfig], Iterator[Problem]]


def check(nn: NNConfig, algorithm: str) -> Iterator[Problem]:
    """Yield all problems of an ``nn:`` block with the rules of networks and of its algorithm."""
    yield from itertools.chain.from_iterable(rule(nn) for rule in RULES)
    whose = declared(algorithm)
    yield from memory_fits_the_algorithm(nn, whose)
    yield from heads_fit_the_algorithm(nn, whose)
    yield from parts_exist(nn, algorithm)


def there_is_a_branch(nn: NNConfig) -> Iterator[Problem]:
    """Check that the network has an input."""
    if not nn.may_see_images and not nn.may_see_vectors:
        yield Problem(
            "nn", "vision and vector are both none; choose an encoder for images (vision) or for vectors (vector)"
        )


def own_bodies_are_whole(nn: NNConfig) -> Iterator[Problem]:
    """Refuse encoders and fusion with a user-defined body, and ``kwargs`` without one."""
    if nn.body is None:
        if nn.kwargs:
            yield Problem("nn.kwargs", "are the arguments of nn.body, which is null; name a body or remove them")
        return
    for name in ("vision", "vector", "fusion"):
        if getattr(nn, name).kind != "none":
            yield Problem(f"nn.{name}", f"{nn.body} takes its place; remove the block, or nn.body")


def convolutions_have_one_entry_each(nn: NNConfig) -> Iterator[Problem]:
    """Check that channels, kernel sizes, strides and paddings have equal lengths and agree with the preset."""
    vision = nn.vision
    if vision.kind != "cnn":
        return
    columns = {"channels": vision.channels, "kernel_sizes": vision.kernel_sizes, "strides": vision.strides}
    if vision.preset is not None:
        for name, column in columns.items():
            if column != PRESETS[vision.preset][name]:
                yield Problem(
                    f"nn.vision.{name}",
                    f"preset {vision.preset} sets it to {list(PRESETS[vision.preset][name])}, got {list(column)}; "
                    f"remove {name} or preset",
                )
        columns = {}
    for name, entries in {**columns, "paddings": vision.paddings}.items():
        if entries is not None and len(entries) != len(vision.channels):
            yield Problem(
                f"nn.vision.{name}",
                f"expected {len(vision.channels)} entries, one for each entry of channels, got {len(entries)}",
            )


def statistics_have_one_entry_each(nn: NNConfig) -> Iterator[Problem]:
    """Check that there are as many standard deviations as means."""
    if nn.vector.kind != "mlp" or nn.vector.normalization.kind != "fixed":
        return
    mean, std = nn.vector.normalization.mean, nn.vector.normalization.std
    if len(mean) != len(std):
        yield Problem(
            "nn.vector.normalization.std",
            f"expected {len(mean)} numbers, one for each entry of mean, got {len(std)}",
        )


def heads_divide_the_width(nn: NNConfig) -> Iterator[Problem]:
    """Check that the number of attention heads divides the width of the tokens."""
    for path, width_key, block, width in _transformers(nn):
        if block.num_layers and width % block.num_heads:
            yield Problem(f"{path}.num_heads", f"expected a divisor of {width_key} = {width}, got {block.num_heads}")
    vision = nn.vision
    if vision.kind == "hf" and vision.refine_layers and (vision.out_features or 0) % vision.refine_heads:
        yield Problem(
            "nn.vision.refine_heads",
            f"expected a divisor of nn.vision.out_features = {vision.out_features}, got {vision.refine_heads}",
        )


def class_tokens_need_attention(nn: NNConfig) -> Iterator[Problem]:
    """Refuse class tokens without attention layers, as they would not depend on the input."""
    for path, _, block, _ in _transformers(nn):
        if block.pooling == "cls" and not block.num_layers:
            yield Problem(f"{path}.pooling", "cls needs num_layers of at least 1, got 0; choose mean or attention")


def kernels_are_odd(nn: NNConfig) -> Iterator[Problem]:
    """Check that kernels are odd, so that a convolution along the tokens keeps their number."""
    if nn.fusion.kind != "none" and nn.fusion.trunk.kind == "cnn" and nn.fusion.trunk.kernel_size % 2 == 0:
        yield Problem("nn.fusion.trunk.kernel_size", f"expected an odd number, got {nn.fusion.trunk.kernel_size}")


def trunks_have_tokens(nn: NNConfig) -> Iterator[Problem]:
    """Refuse token keys with the linear trunk of vision_transformer, which has no tokens."""
    fusion = nn.fusion
    if fusion.kind != "vision_transformer" or fusion.trunk.kind != "linear":
        return
    for name in ("d_model", "num_tokens"):
        if getattr(fusion, name) is not None:
            yield Problem(
                f"nn.fusion.{name}", "trunk linear has no tokens here; remove the key or choose another trunk"
            )


def image_options_have_an_image(nn: NNConfig) -> Iterator[Problem]:
    """Check that the image encoder provides the tokens that the fusion asks for."""
    fusion, vision = nn.fusion, nn.vision
    if fusion.kind == "vision_transformer" and fusion.vision_features is not None and vision.kind == "none":
        yield Problem("nn.fusion.vision_features", "nn.vision has kind none; remove the key")
    takes_all = fusion.kind == "unified"
    if fusion.kind == "post_concat" and fusion.layout.kind == "token_sequence":
        takes_all = fusion.layout.image_tokens == "all"
        if takes_all and vision.kind not in ("vit", "hf"):
            yield Problem(
                "nn.fusion.layout.image_tokens",
                f"all needs an encoder with tokens (vit, hf), got nn.vision of kind {vision.kind}; choose summary",
            )
    pooling = vision.pooling if isinstance(vision, ViTVision | HFVision) else "mean"
    if takes_all and pooling != "mean":
        yield Problem(
            "nn.vision.pooling",
            f"the fusion reads all tokens, before the pooling; expected the default mean, got {pooling}",
        )


def vector_options_have_a_vector(nn: NNConfig) -> Iterator[Problem]:
    """Refuse options about vector tokens without a vector encoder."""
    if nn.vector.kind != "none":
        return
    layout = nn.fusion.layout if nn.fusion.kind == "post_concat" else None
    if nn.fusion.kind == "unified" and nn.fusion.num_vector_tokens != 1:
        yield Problem("nn.fusion.num_vector_tokens", "nn.vector has kind none; remove the key")
    if layout is not None and layout.kind == "token_sequence" and layout.vector_tokens != DenseTokens():
        yield Problem("nn.fusion.layout.vector_tokens", "nn.vector has kind none; remove the key")


def norms_have_a_layer(nn: NNConfig) -> Iterator[Problem]:
    """Check that there is a hidden layer if ``layer_norm`` is set."""
    if nn.vector.kind == "mlp" and nn.vector.layer_norm and not nn.vector.hidden_sizes:
        yield Problem("nn.vector.layer_norm", "there is no layer, nn.vector.hidden_sizes is empty; set it to false")


def transformers_is_installed(nn: NNConfig) -> Iterator[Problem]:
    """Check that transformers is installed if a model of Hugging Face is used."""
    keys = ["nn.vision.kind"] if nn.vision.kind == "hf" else []
    if nn.fusion.kind != "none" and nn.fusion.trunk.kind == "hf_embedding":
        keys.append("nn.fusion.trunk.kind")
    for key in keys:
        if importlib.util.find_spec("transformers") is None:
            yield Problem(key, 'models of Hugging Face need transformers; install "tesserl-trainer[hf]"')


RULES: tuple[NetworkRule, ...] = (
    there_is_a_branch,
    convolutions_have_one_entry_each,
    own_bodies_are_whole,
    statistics_have_one_entry_each,
    heads_divide_the_width,
    class_tokens_need_attention,
    kernels_are_odd,
    trunks_have_tokens,
    image_options_have_an_image,
    vector_options_have_a_vector,
    norms_have_a_layer,
    transformers_is_installed,
)


def memory_fits_the_algorithm(nn: NNConfig, algorithm: Algorithm) -> Iterator[Problem]:
    """Refuse a memory for algorithms that do not learn from sequences."""
    if algorithm.without_memory is not None and nn.memory.kind != "none":
        yield Problem(
            "nn.memory.kind",
            f"{algorithm.name} {algorithm.without_memory}, got {nn.memory.kind}; choose none, stack frames, or use ppo",
        )


def heads_fit_the_algorithm(nn: NNConfig, algorithm: Algorithm) -> Iterator[Problem]:
    """Check the options of the heads: advantages and noise for action values, policy and shared layers for a policy."""
    heads, name = nn.heads, algorithm.name
    if algorithm.network != "policy":
        if heads.policy is not None:
            yield Problem("nn.heads.policy", f"{name} has no policy; its streams are advantage and, if dueling, value")
        if heads.value is not None and not heads.dueling:
            yield Problem("nn.heads.value", "there is no value stream; set nn.heads.dueling: true or remove the key")
        if heads.shared_hidden_sizes:
            yield Problem(
                "nn.heads.shared_hidden_sizes", f"belongs to algorithms with a policy, got {name}; remove the key"
            )
    else:
        for key in ("dueling", "noisy", "advantage"):
            if getattr(heads, key):
                yield Problem(f"nn.heads.{key}", f"belongs to iqn, got algorithm {name}; remove the key")
        if heads.value is not None and not algorithm.has_value:
            yield Problem("nn.heads.value", f"{name} has no value; remove the key")
    streams = [getattr(heads, stream) for stream in streams_of(heads, name)]
    defaults = (HeadsConfig().hidden_sizes, algorithm.hidden_sizes or ())
    if None not in streams and heads.hidden_sizes not in defaults:
        yield Problem("nn.heads.hidden_sizes", "every stream has a block of its own; remove the key")
    hidden = (heads if stream is None else stream for stream in streams)
    has_layers = (not isinstance(block, HeadsConfig | MLPStream) or bool(block.hidden_sizes) for block in hidden)
    if heads.layer_norm and not heads.shared_hidden_sizes and not any(has_layers):
        yield Problem("nn.heads.layer_norm", "there is no hidden layer; set it to false")


def parts_exist(nn: NNConfig, algorithm: str) -> Iterator[Problem]:
    """Check that parts in ``freeze`` and ``learning_rate_factors`` exist, and that some part learns."""
    parts = parts_of(nn, algorithm)
    known = ", ".join(parts)
    for index, name in enumerate(nn.freeze):
        if name not in parts:
            yield Problem(f"nn.freeze.{index}", f"this network has no part {name}; parts: {known}")
    frozen: set[str] = {inner for name in nn.freeze for inner in (name, *INSIDE.get(name, ()))}
    without_layers = nn.vector.kind == "mlp" and not nn.vector.hidden_sizes
    learning = [name for name in parts if name != "heads" and not (name == "vector" and without_layers)]
    if frozen.issuperset(learning):
        yield Problem("nn.freeze", "every part is frozen, nothing is left to learn; leave one out")
    factors = {name for name, factor in nn.learning_rate_factors.by_part().items() if factor != 1}
    for part in sorted(factors):
        path = f"nn.learning_rate_factors.{part}"
        inside = sorted(factors.intersection(INSIDE.get(part, ())))
        if part not in parts:
            yield Problem(path, f"this network has no part {part}; parts: {known}")
        elif part in frozen:
            yield Problem(path, f"{part} is frozen by nn.freeze; remove one of the two")
        elif part == "vector" and without_layers:
            yield Problem(path, "there is no layer, nn.vector.hidden_sizes is empty; remove the key")
        elif inside:
            yield Problem(path, f"{' and '.join(inside)} in it would have two factors; remove one of them")


def initial_parts_exist(nn: NNConfig, algorithm: str, wanted: Iterable[str]) -> Iterator[Problem]:
    """Check that the network has the parts that are loaded from another run."""
    parts = parts_of(nn, algorithm)
    for index, name in enumerate(wanted):
        if name not in parts:
            path = f"initial_weights.parts.{index}"
            yield Problem(path, f"this network has no part {name}; parts: {', '.join(parts)}")


INSIDE = {"fusion": ("trunk",), "heads": ("shared", "advantage", "policy", "value")}
"""Part -> parts inside it."""


def parts_of(nn: NNConfig, algorithm: str) -> list[str]:
    """Return the parts of a network that may be frozen or have a learning rate factor."""
    parts = [name for name in ("vision", "vector", "fusion") if getattr(nn, name).kind != "none"]
    parts += [] if nn.body is None else ["body"]
    if nn.fusion.kind != "none" and nn.fusion.trunk.kind != "linear":
        parts.append("trunk")
    if nn.memory.kind != "none":
        parts.append("memory")
    network = declared(algorithm).network
    embedding = ["embedding"] if network == "quantile" else []
    shared = ["shared"] if nn.heads.shared_hidden_sizes and network == "policy" else []
    return [*parts, *embedding, "heads", *shared, *streams_of(nn.heads, algorithm)]


def streams_of(heads: HeadsConfig, algorithm: str) -> list[str]:
    """Return the streams of a network's heads."""
    whose = declared(algorithm)
    if whose.network != "policy":
        return ["advantage", "value"] if heads.dueling else ["advantage"]
    return ["policy", "value"] if whose.has_value else ["policy"]


def _transformers(nn: NNConfig) -> Iterator[tuple[str, str, Any, int]]:
    """Yield (path, key of the token width, block, token width) of each block with transformer layers."""
    if nn.vision.kind == "vit":
        yield "nn.vision", "nn.vision.d_model", nn.vision, nn.vision.d_model
    if nn.fusion.kind != "none" and nn.fusion.trunk.kind == "native_transformer":
        yield "nn.fusion.trunk", "nn.fusion.d_model", nn.fusion.trunk, nn.fusion.d_model or 0
    for name in ("advantage", "policy", "value"):
        stream = getattr(nn.heads, name)
        if stream is not None and stream.kind == "transformer":
            yield f"nn.heads.{name}", f"nn.heads.{name}.d_model", stream, stream.d_model
