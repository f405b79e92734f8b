"""Draw quantiles at sampled fractions from a network, and action values, which are their means."""

from __future__ import annotations

import torch
from torch import Tensor

from tesserl_iqn.fractions import TauSampling, sample_taus
from tesserl_iqn.network import QuantileNetwork
from tesserl_iqn.pairs import at_least_float32


def sample_quantiles(
    network: QuantileNetwork, features: Tensor, num_taus: int, *, kind: TauSampling
) -> tuple[Tensor, Tensor]:
    """Return quantiles at fractions of each element, and these.

    Args:
        network: what to ask; where it has fixed fractions, they are taken, and nothing is drawn.
        features: of the observations, ``[*B, F]``.
        num_taus: fractions ``K`` of each element.
        kind: how they are drawn, see `sample_taus`.

    Returns:
        Quantiles, ``[*B, (N,) K, A]``, in float32 or wider, and fractions, ``[*B, (N,) K]``.
    """
    fixed = network.num_fixed_quantiles
    number, how = (num_taus, kind) if fixed is None else (fixed, "midpoints")
    taus = sample_taus(features.shape[:-1], number, kind=how, device=features.device, dtype=torch.float32)
    quantiles = _per_block(network, network.quantiles(features, taus if fixed is None else None))
    return quantiles, taus if network.num_blocks is None else taus.unsqueeze(-2).expand(quantiles.shape[:-1])


def sample_action_value(
    network: QuantileNetwork, features: Tensor, num_taus: int, *, kind: TauSampling, quantiles: Tensor | None = None
) -> Tensor:
    """Return the value of every action: the mean over one fresh row of fractions for the whole batch.

    Args:
        network: what to ask.
        features: of the observations, ``[*B, F]``.
        num_taus: fractions of the row.
        kind: how they are drawn, see `sample_taus`.
        quantiles: of these features, ``[*B, (N,) K, A]``, where they are known: fixed fractions are always the same, so
            that it is their mean.

    Returns:
        Action values, ``[*B, (N,) A]``.
    """
    if network.num_fixed_quantiles is None:
        taus = sample_taus((), num_taus, kind=kind, device=features.device, dtype=torch.float32)
        quantiles = _per_block(network, network.quantiles(features, taus))
    elif quantiles is None:
        quantiles = _per_block(network, network.quantiles(features))
    return quantiles.mean(dim=-2)


def _per_block(network: QuantileNetwork, quantiles: Tensor) -> Tensor:
    """Move the fractions behind the blocks, ``[*B, (N,) K, A]``, in float32 or wider."""
    if network.num_blocks is not None:
        quantiles = quantiles.transpose(-3, -2)
    return at_least_float32(quantiles)
