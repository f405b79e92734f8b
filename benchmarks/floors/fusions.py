"""Bodies of an image (ViT) and a vector (MLP) branch, forward: pixels ``[B, C, H, W]``, observation ``[B, F]``."""

import torch
from torch import Tensor

from floors.encoders import State, linear, part, transformer, vector, vit, vit_tokens

HEADS = 4


def concat(p: State, pixels: Tensor, observation: Tensor, *, patch_size: int) -> Tensor:
    image = vit(part(p, "vision"), pixels, patch_size=patch_size, num_heads=HEADS)
    return torch.cat([image, vector(part(p, "vector"), observation)], 1)


def vision_transformer(p: State, pixels: Tensor, observation: Tensor, *, patch_size: int) -> Tensor:
    """Map the image to a separate width, concatenate the vector, and apply one linear layer."""
    image = vit(part(p, "vision.encoder"), pixels, patch_size=patch_size, num_heads=HEADS)
    image = linear(p, "vision.project", image)
    return linear(p, "bridge", torch.cat([image, vector(part(p, "vector"), observation)], 1))


def fused_vector(p: State, pixels: Tensor, observation: Tensor, *, patch_size: int, num_tokens: int) -> Tensor:
    joint = concat(p, pixels, observation, patch_size=patch_size)
    return trunk(p, linear(p, "tokens.linear", joint).view(len(joint), num_tokens, -1))


def token_sequence(p: State, pixels: Tensor, observation: Tensor, *, patch_size: int) -> Tensor:
    """One token of the image and dense or per-feature tokens of the vector."""
    image = vit(part(p, "vision"), pixels, patch_size=patch_size, num_heads=HEADS)
    return trunk(p, sequence(p, image.unsqueeze(1), vector(part(p, "vector"), observation)))


def unified(p: State, pixels: Tensor, observation: Tensor, *, patch_size: int) -> Tensor:
    """All patches and dense tokens of the vector."""
    image = vit_tokens(part(p, "vision"), pixels, patch_size=patch_size, num_heads=HEADS)
    return trunk(p, sequence(p, image, vector(part(p, "vector"), observation)))


def sequence(p: State, image: Tensor, features: Tensor) -> Tensor:
    """Both modalities with their embeddings, ``[B, L, d]``."""
    image = linear(p, "tokens.image", image) + p["tokens.modalities"][0]
    if "tokens.vector.weight" in p:  # one token per feature
        tokens = torch.addcmul(p["tokens.vector.bias"], features.unsqueeze(-1), p["tokens.vector.weight"])
    else:
        tokens = linear(p, "tokens.vector.linear", features).view(len(features), -1, image.shape[-1])
    return torch.cat([image, tokens + p["tokens.modalities"][1]], 1)


def trunk(p: State, tokens: Tensor) -> Tensor:
    """Transformer layers, the mean over the tokens, one linear layer."""
    return linear(p, "bridge", transformer(part(p, "trunk.encoder"), tokens, num_heads=HEADS).mean(1))
