"""Normalisation of vector observations, by fixed or by running statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tesserl_nn_components.precision import keep_float64


class FixedNormalizer(nn.Module):
    """``(x - mean) / std`` with statistics that never change; they are buffers and part of the state dict.

    Args:
        mean: per feature, in the feature's unit, ``[F]``.
        std: per feature, in the feature's unit, ``[F]``; positive.

    Raises:
        ValueError: if the shapes differ, or an entry is not finite, or a ``std`` is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor | Sequence[float], std: Tensor | Sequence[float]) -> None:
        super().__init__()
        mean = torch.as_tensor(mean, dtype=torch.get_default_dtype()).detach().clone()
        std = torch.as_tensor(std, dtype=torch.get_default_dtype()).detach().clone()
        if mean.dim() != 1 or mean.shape != std.shape:
            raise ValueError(
                f"mean and std must be one number per feature, [F], got {tuple(mean.shape)} and {tuple(std.shape)}"
            )
        if not mean.is_meta:
            bad = (~mean.isfinite() | ~std.isfinite() | (std <= 0)).nonzero().flatten().tolist()
            if bad:
                raise ValueError(
                    f"mean must be finite and std positive and finite, not so at features {bad}; "
                    "use mean 0 and std 1 for a feature that needs no normalisation"
                )
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, features: Tensor) -> Tensor:
        """Normalise ``[*B, F]``."""
        return (features - self.mean) / self.std


class RunningNormalizer(nn.Module):
    """Normalise by the mean and population variance of all features passed to :meth:`update`.

    Batches are merged by Chan, Golub & LeVeque 1979 (parallel variance), so the order and size of batches do not
    matter. The statistics are buffers (``mean``, ``variance``, ``count``) and part of the state dict; only
    :meth:`update` and :meth:`merge` change them, never a forward pass. In evaluation mode they are frozen.

    Mean and variance stay in float64 when the network is cast: in float32, rounding would discard the contribution of a
    small batch after many samples. A state dict in another dtype is converted when it is loaded.

    Args:
        num_features: number of features ``F``.
        eps: added to the variance before the square root.
        clip: normalised features are clipped to ``[-clip, clip]``; None for no clipping.

    Raises:
        ValueError: if ``num_features`` is below 1, or ``clip`` is not positive.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, num_features: int, *, eps: float = 1e-8, clip: float | None = 10.0) -> None:
        super().__init__()
        if num_features < 1:
            raise ValueError(f"num_features must be at least 1, got {num_features}")
        if clip is not None and clip <= 0:
            raise ValueError(f"clip must be positive or None, got {clip}")
        self.eps = eps
        self.clip = clip
        self.register_buffer("mean", torch.zeros(num_features, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(num_features, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, features: Tensor) -> None:
        """Merge a batch into the statistics; do nothing in evaluation mode.

        Args:
            features: ``[*B, F]``; every leading dimension counts as samples.

        Raises:
            ValueError: if the last size is not ``num_features``.
        """
        if features.shape[-1:] != self.mean.shape:
            raise ValueError(f"features must end in {self.mean.shape[0]} features, got shape {tuple(features.shape)}")
        if not self.training or features.numel() == 0:
            return
        batch = features.reshape(-1, features.shape[-1]).to(self.mean.dtype)
        variance, mean = torch.var_mean(batch, dim=0, correction=0)
        self.merge(batch.shape[0], mean, variance)

    @torch.no_grad()
    def merge(self, count: int, mean: Tensor, variance: Tensor) -> None:
        """Merge the statistics of a batch of another process; do nothing in evaluation mode.

        Args:
            count: number of samples.
            mean: mean of the samples, ``[F]``, in the dtype of the statistics.
            variance: population variance of the samples (divided by ``count``), ``[F]``.
        """
        if not self.training or count == 0:
            return
        self.count += count
        weight = count / self.count.to(self.mean.dtype)  # share of the new samples; 1 for the first batch
        delta = mean - self.mean
        self.variance.lerp_(variance, weight).add_(delta.square() * weight * (1 - weight))
        self.mean.lerp_(mean, weight)

    def forward(self, features: Tensor) -> Tensor:
        """Normalise ``[*B, F]``; the result has the dtype of the features."""
        dtype = torch.promote_types(features.dtype, torch.float32)
        scale = torch.rsqrt(self.variance + self.eps).to(dtype)
        normalized = (features - self.mean.to(dtype)) * scale
        if self.clip is not None:
            normalized = normalized.clamp(-self.clip, self.clip)
        return normalized.to(features.dtype) if features.is_floating_point() else normalized

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RunningNormalizer:
        """Move the statistics to another device, but keep them in float64."""
        super()._apply(keep_float64(fn), recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Convert loaded statistics to float64, because ``assign=True`` would keep their dtype."""
        for name in ("mean", "variance"):
            if isinstance(loaded := state_dict.get(prefix + name), Tensor):
                state_dict[prefix + name] = loaded.to(self.mean.dtype)
        super()._load_from_state_dict(state_dict, prefix, *args)
