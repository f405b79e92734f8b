"""Image and vector encoders, forward: pixels ``[B, C, H, W]`` uint8.

Parameters and buffers ``p`` have the names of the state dict of the compared network.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

State = Mapping[str, Tensor]


def part(p: State, name: str) -> State:
    """Return the tensors whose names begin with ``name.``, without this prefix."""
    return {key.removeprefix(f"{name}."): value for key, value in p.items() if key.startswith(f"{name}.")}


def cnn(p: State, pixels: Tensor, strides: Sequence[int]) -> Tensor:
    """Convolutions and ReLU; the flat feature map."""
    x = pixels.float().div_(255)
    for index, stride in enumerate(strides):
        layer = f"conv.layers.{2 * index}"
        x = functional.conv2d(x, p[f"{layer}.weight"], p[f"{layer}.bias"], stride).relu_()
    return x.flatten(1)


def impala(p: State, pixels: Tensor, *, pool_size: int | None = None, spectral: bool = False) -> Tensor:
    """Three stages of convolution, max-pooling and two residual blocks; perhaps pooled; the flat feature map."""
    x = pixels.float().div_(255)
    for stage in range(3):
        x = conv3x3(p, f"stages.{stage}.conv", x)
        x = functional.max_pool2d(x, 3, 2, 1)
        for block in range(2):
            name = f"stages.{stage}.blocks.{block}"
            inner = conv3x3(p, f"{name}.conv1", x.relu(), spectral=spectral).relu_()
            x = conv3x3(p, f"{name}.conv2", inner, spectral=spectral).add_(x)
    if pool_size is not None:
        x = functional.adaptive_max_pool2d(x, pool_size)
    return x.flatten(1).relu_()


def conv3x3(p: State, name: str, x: Tensor, *, spectral: bool = False) -> Tensor:
    weight = p[f"{name}.weight"]
    if spectral:  # one power iteration, as torch.nn.utils.parametrizations.spectral_norm in training mode
        matrix, u, v = weight.flatten(1), p[f"{name}.u"], p[f"{name}.v"]
        with torch.no_grad():
            u.copy_(functional.normalize(torch.mv(matrix, v), dim=0))
            v.copy_(functional.normalize(torch.mv(matrix.T, u), dim=0))
        weight = weight / torch.dot(u.clone(), torch.mv(matrix, v.clone()))
    return functional.conv2d(x, weight, p[f"{name}.bias"], padding=1)


def vit_tokens(p: State, pixels: Tensor, *, patch_size: int, num_heads: int) -> Tensor:
    """Patches with positions, pre-norm layers, a last LayerNorm where there are layers: ``[B, L, d]``."""
    x = functional.conv2d(pixels.float().div_(255), p["patches.weight"], p["patches.bias"], patch_size)
    return transformer(part(p, "encoder"), x.flatten(2).transpose(1, 2) + p["positions"], num_heads=num_heads)


def vit(p: State, pixels: Tensor, *, patch_size: int, num_heads: int) -> Tensor:
    """Return the mean over the tokens, ``[B, d]``."""
    return vit_tokens(p, pixels, patch_size=patch_size, num_heads=num_heads).mean(1)


def transformer(p: State, x: Tensor, *, num_heads: int) -> Tensor:
    """Pre-norm layers and a LayerNorm behind them, ``[B, L, d]``."""
    layers = sum(name.endswith("qkv.weight") for name in p)
    batch, length, width = x.shape
    for index in range(layers):
        q = part(p, f"layers.{index}")
        heads = linear(q, "qkv", layer_norm(q, "norm1", x)).view(batch, length, 3, num_heads, width // num_heads)
        mixed = functional.scaled_dot_product_attention(*heads.permute(2, 0, 3, 1, 4).unbind(0))
        x = x + linear(q, "project.0", mixed.transpose(1, 2).reshape(batch, length, width))
        hidden = functional.gelu(linear(q, "feedforward.0", layer_norm(q, "norm2", x)))
        x = x + linear(q, "feedforward.3", hidden)
    return layer_norm(p, "norm", x) if layers else x


def hf_vit(p: State, pixels: Tensor, backbone: Callable[[Tensor], Tensor]) -> Tensor:
    """A given backbone on normalised pixels: its first token."""
    return backbone((pixels.float().div_(255) - p["pixel_mean"]) / p["pixel_std"])[:, 0]


def vector(p: State, observation: Tensor) -> Tensor:
    """Fixed normalisation, then linear layers and ReLU."""
    x = (observation - p["normalizer.mean"]) / p["normalizer.std"]
    for index in range(sum(name.startswith("mlp") and name.endswith("weight") for name in p)):
        x = linear(p, f"mlp.layers.{2 * index}", x).relu_()
    return x


def linear(p: State, name: str, x: Tensor) -> Tensor:
    return functional.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])


def layer_norm(p: State, name: str, x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"])
