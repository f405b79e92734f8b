"""Share tensors between networks that are called directly and parameters that a torchrl loss registers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from tensordict.nn import TensorDictParams
from torch import Tensor, nn

from tesserl_nn_components import RunningNormalizer, SpectralConv2d, keep_float64


def tie_networks(
    online: nn.Module, target: nn.Module, online_params: TensorDictParams, target_params: TensorDictParams
) -> None:
    """Make both networks use the registered parameters and buffers; the target's get no gradients."""
    for name in _data_buffers(online):
        key = tuple(name.split("."))
        target_params.get(key).data = online_params.get(key).data
    online_params.to_module(online)
    target_params.data.to_module(target)
    target.requires_grad_(False)


def spare_statistics(
    apply: Callable[[Tensor], Tensor], networks: Iterable[nn.Module], *others: Tensor
) -> Callable[[Tensor], Tensor]:
    """Return a function for ``nn.Module._apply`` that leaves running statistics in float64.

    A normaliser does this itself when its network is cast, but registered parameters hold its buffers without it.

    Args:
        apply: casts or moves a tensor.
        networks: networks that may contain normalisers.
        *others: further statistics, not of a normaliser.
    """
    normalizers = [
        module for network in networks for module in network.modules() if isinstance(module, RunningNormalizer)
    ]
    statistics = [*others, *(buffer for module in normalizers for buffer in module.buffers())]
    places = {statistic.data_ptr() for statistic in statistics if statistic.dtype == torch.float64} - {0}  # 0: meta
    exact = keep_float64(apply)
    return lambda tensor: exact(tensor) if tensor.data_ptr() in places else apply(tensor)


def _data_buffers(network: nn.Module) -> list[str]:
    """Return the names of the buffers that describe data, such as the statistics of a normaliser.

    The others are noise, power-iteration vectors of spectral norm and statistics of activations: they belong to the
    weights of one network.
    """
    names = []
    for prefix, module in network.named_modules():
        if hasattr(module, "reset_noise") or hasattr(module, "running_mean") or isinstance(module, SpectralConv2d):
            continue
        own = module.named_buffers(prefix, recurse=False)
        names += [name for name, _ in own if not name.endswith(("_u", "_v"))]
    return names
