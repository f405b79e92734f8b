"""The layers that do in training mode what belongs to learning alone, not to acting and not to targets."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from tesserl_nn_components import SpectralConv2d, TransformerLayer


def spectral_layers(network: nn.Module) -> Iterator[nn.Module]:
    """Find the modules that make a power iteration: ours, and those that parametrize a weight in torch."""
    for module in network.modules():
        if isinstance(module, SpectralConv2d):
            yield module
        elif isinstance(module, ParametrizationList):
            yield from module.children()


def dropout_layers(network: nn.Module) -> Iterator[nn.Module]:
    """Find the modules that drop units: dropout itself, and attention with dropout inside."""
    attention = (TransformerLayer, nn.MultiheadAttention)
    for module in network.modules():
        drops = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        if drops or (isinstance(module, attention) and module.dropout > 0):
            yield module


def without_dropout(network: nn.Module) -> None:
    """Put the dropout of a network to rest, whatever mode the rest of it is in."""
    for layer in dropout_layers(network):
        layer.training = False
