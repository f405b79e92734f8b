"""Scaling of gradients in the backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class ScaleGrad(torch.autograd.Function):
    """Identity forward; multiplies the gradient by ``scale`` backward. Call it through :func:`scale_grad`."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, scale: float) -> Tensor:
        """Keep ``scale`` for backward and return ``tensor`` unchanged."""
        ctx.scale = scale
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        """Return the scaled gradient, and None for ``scale``."""
        return grad_output * ctx.scale, None


def scale_grad(tensor: Tensor, scale: float) -> Tensor:
    """Return ``tensor`` unchanged; the backward pass multiplies its gradient by ``scale``.

    Wang et al. 2016 (arXiv:1511.06581) scale the gradient that enters the shared trunk of a dueling network by
    ``1/sqrt(2)``.

    Args:
        tensor: any shape.
        scale: factor of the gradient; 1 changes nothing, 0 stops the gradient (it is zero, not None).
    """
    return ScaleGrad.apply(tensor, scale)  # type: ignore[no-untyped-call]
