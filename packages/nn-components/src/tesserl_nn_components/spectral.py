"""Convolution with spectral normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from tesserl_nn_components.precision import full_precision

Size = int | tuple[int, int]


class SpectralConv2d(nn.Conv2d):
    """``nn.Conv2d`` whose weight is divided by its largest singular value.

    Miyato et al. 2018 (arXiv:1802.05957), algorithm 1, with one power iteration in each training-mode forward pass and
    none in evaluation mode; gradients flow through the singular value. It gives the same output as
    ``torch.nn.utils.parametrizations.spectral_norm``, but it can be pickled and its weight is a plain parameter. The
    singular vectors are the buffers ``u`` and ``v``, part of the state dict.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: int or (height, width), like ``padding``, ``stride`` and ``dilation``.
        padding: zeros added on both sides.
        stride: step of the window.
        dilation: distance between the kernel's elements.
    """

    u: Tensor
    v: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        padding: Size = 0,
        *,
        stride: Size = 1,
        dilation: Size = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation)
        rows, columns = self.weight.flatten(1).shape
        self.register_buffer("u", normalize(torch.randn(rows), dim=0))
        self.register_buffer("v", normalize(torch.randn(columns), dim=0))
        self.power_iteration(15)

    @torch.no_grad()
    def power_iteration(self, num_iterations: int = 1) -> None:
        """Move ``u`` and ``v`` towards the singular vectors of the weight; about 15 iterations for a new weight."""
        matrix = self.weight.flatten(1)
        for _ in range(num_iterations):
            self.u.copy_(normalize(torch.mv(matrix, self.v), dim=0))
            self.v.copy_(normalize(torch.mv(matrix.T, self.u), dim=0))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # nn.Conv2d's name
        """Map ``[B, in_channels, H, W]`` to ``[B, out_channels, H', W']``."""
        with full_precision(input.device.type):
            if self.training:
                self.power_iteration()
            # Copies: another forward pass may change the buffers in place before the backward pass of this one
            singular_value = torch.dot(self.u.clone(), torch.mv(self.weight.flatten(1), self.v.clone()))
            weight = self.weight / singular_value
        return self._conv_forward(input, weight, self.bias)
