"""Running statistics of features that ranks merge."""

from typing import Protocol

import torch
from torch import Tensor


class Statistics(Protocol):
    """Interface of running mean and variance of features, such as `tesserl_nn_components.RunningNormalizer`."""

    @property
    def mean(self) -> Tensor:
        """Mean of each feature, ``[F]``."""

    def update(self, features: Tensor, /) -> None:
        """Merge features ``[*B, F]``."""

    def merge(self, count: int, mean: Tensor, variance: Tensor, /) -> None:
        """Merge the count, mean and population variance of features."""


def moments(features: Tensor) -> tuple[int, Tensor, Tensor]:
    """Return count, mean and population variance ``[F]`` of features ``[*B, F]``, in float64 on the CPU."""
    rows = features.detach().reshape(-1, features.shape[-1]).double()
    if not len(rows):
        return 0, torch.zeros(rows.shape[-1], dtype=torch.float64), torch.zeros(rows.shape[-1], dtype=torch.float64)
    variance, mean = torch.var_mean(rows, dim=0, correction=0)
    return len(rows), mean.cpu(), variance.cpu()
