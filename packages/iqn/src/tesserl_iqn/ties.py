"""Keeping networks that are called directly on the tensors that a torchrl loss registers."""

from __future__ import annotations

from tensordict.nn import TensorDictParams
from torch import nn

from tesserl_nn_components import SpectralConv2d


def tie_networks(
    online: nn.Module, target: nn.Module, online_params: TensorDictParams, target_params: TensorDictParams
) -> None:
    """Make both networks run on registered parameters and buffers.

    Args:
        online: the online network.
        target: the target network; its parameters will not ask for gradients.
        online_params: registered parameters and buffers of the online network.
        target_params: those of the target network; buffers that describe data become the online network's.
    """
    for name in _data_buffers(online):
        key = tuple(name.split("."))
        target_params.get(key).data = online_params.get(key).data
    online_params.to_module(online)
    target_params.data.to_module(target)
    target.requires_grad_(False)


def _data_buffers(network: nn.Module) -> list[str]:
    """Return the names of the buffers that describe data, such as the statistics of a normaliser.

    The others are noise, power-iteration vectors of spectral norm and statistics of activations: they belong to the
    weights of one network.
    """
    names = []
    for prefix, module in network.named_modules():
        if hasattr(module, "reset_noise") or isinstance(module, nn.modules.batchnorm._NormBase | SpectralConv2d):
            continue
        own = module.named_buffers(prefix, recurse=False)
        names += [name for name, _ in own if not name.endswith(("_u", "_v"))]
    return names
