"""Encoder of vector observations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tesserl_nn_components.calls import child
from tesserl_nn_components.inputs import explain_features
from tesserl_nn_components.mlp import MLP, Activation, as_sizes
from tesserl_nn_components.normalization import FixedNormalizer, RunningNormalizer


class VectorEncoder(nn.Module):
    """Normalisation and an MLP.

    Args:
        in_features: number of features of the observation.
        hidden_sizes: widths of the MLP's layers; the last one is ``out_features``. Empty for normalisation only.
        mean: fixed mean per feature, ``[F]``; zeros if only ``std`` is given.
        std: fixed standard deviation per feature, ``[F]``, positive; ones if only ``mean`` is given.
        running: normalise by running statistics instead; update them with ``encoder.normalizer.update(observation)``.
        activation: makes the activation module.
        layer_norm: puts a LayerNorm before each activation.

    Raises:
        ValueError: if the statistics do not fit ``in_features``, are not positive, or are given together with
            ``running``.
    """

    def __init__(
        self,
        in_features: int,
        *,
        hidden_sizes: int | Sequence[int],
        mean: Tensor | Sequence[float] | None = None,
        std: Tensor | Sequence[float] | None = None,
        running: bool = False,
        activation: Activation = nn.ReLU,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.in_keys = ["observation"]
        self.in_features = in_features
        self.out_features = in_features
        self.normalizer: FixedNormalizer | RunningNormalizer | None = None
        if mean is not None or std is not None:
            if running:
                raise ValueError("running=True estimates mean and std, got them too; give one or the other")
            self.normalizer = FixedNormalizer(
                torch.zeros(in_features) if mean is None else mean, torch.ones(in_features) if std is None else std
            )
            if self.normalizer.mean.shape != (in_features,):
                raise ValueError(f"mean and std must have in_features={in_features} entries, got {mean} and {std}")
        elif running:
            self.normalizer = RunningNormalizer(in_features)
        self.mlp: MLP | None = None
        if as_sizes(hidden_sizes):
            self.mlp = MLP(in_features, hidden_sizes, activation=activation, layer_norm=layer_norm)
            self.out_features = self.mlp.out_features

    def forward(self, observation: Tensor) -> Tensor:
        """Map observations ``[*B, in_features]`` to features ``[*B, out_features]``.

        Raises:
            TypeError: if ``observation`` is not a tensor of the dtype of the weights.
            ValueError: if the last size of ``observation`` is not ``in_features``.
        """
        if not isinstance(observation, Tensor) or observation.shape[-1:] != (self.in_features,):
            explain_features(observation, self.in_features, None, "observation")
        features = observation if self.normalizer is None else self.normalizer(observation)
        if "mlp" not in self._modules:
            return features
        mlp: MLP = child(self, "mlp")
        try:
            return mlp._run(features)
        except RuntimeError:
            explain_features(features, self.in_features, next(mlp.parameters()).dtype, "observation")
            raise
