"""The implicit quantile network: a body, a cosine embedding of the quantile fraction, and a head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal, cast

import torch
from tensordict import NestedKey
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrize import ParametrizationList

from tesserl_iqn.functional import cosine_frequencies
from tesserl_nn_components import (
    MLP,
    NoisyLinear,
    QuantileDecoder,
    SpectralConv2d,
    TransformerLayer,
    require_body,
    width_of,
)
from tesserl_nn_components.calls import is_observed
from tesserl_policy import at_least_float32

CosineActivation = Literal["relu", "leaky_relu"]
ACTIVATIONS: dict[str, Callable[..., Tensor]] = {"relu": functional.relu, "leaky_relu": functional.leaky_relu}
"""Activations of the embedding; leaky_relu has slope 0.01."""
DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


class CosineEmbedding(nn.Linear):
    """Embedding of quantile fractions, ``relu(W cos(pi * i * tau) + b)`` (IQN, Dabney et al. 2018, arXiv:1806.06923).

    Args:
        num_cosines: number of cosine features, at least 1; 64 in every published implementation.
        features: width of the embedding, equal to the width of the body.
        start: first cosine index, 0 (paper, BTR) or 1 (Dopamine's family). Weights of one do not fit the other.
        activation: ``"relu"`` (paper), or ``"leaky_relu"`` with slope 0.01 (Linesight).

    Raises:
        ValueError: a size is below 1, ``start`` is negative or ``activation`` is unknown.
    """

    def __init__(
        self, num_cosines: int, features: int, *, start: int = 0, activation: CosineActivation = "relu"
    ) -> None:
        if num_cosines < 1:
            raise ValueError(f"num_cosines must be at least 1, got {num_cosines}")
        if start < 0:
            raise ValueError(f"start of the cosine index must be 0 (paper) or 1 (Dopamine), got {start}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation of the embedding must be relu or leaky_relu, got {activation!r}")
        super().__init__(num_cosines, features)
        self.start = start
        self.activation = activation
        # not a buffer: casts would round it, and the state dict does not need it
        self._frequencies = cosine_frequencies(num_cosines, start)

    def forward(self, taus: Tensor) -> Tensor:
        """Embed fractions.

        Args:
            taus: fractions in [0, 1], ``[*B, K]``, in float32 even if the network uses a narrower type.

        Returns:
            Embedding, ``[*B, K, features]``; at least 0 with relu.
        """
        frequencies = self._frequencies
        if frequencies.device != taus.device or frequencies.dtype != taus.dtype:
            frequencies = cosine_frequencies(self.in_features, self.start, device=taus.device, dtype=taus.dtype)
            self._frequencies = frequencies
        weight = self.weight
        cosines = torch.cos(taus.unsqueeze(-1) * frequencies).to(weight.dtype)
        embedding = functional.linear(cosines, weight, self.bias)
        # not in place with a gradient: the linear layer returns a view, whose gradient would need two more kernels
        return ACTIVATIONS[self.activation](embedding, inplace=not embedding.requires_grad)


class QuantileNetwork(nn.Module):
    """Return quantiles of every action at given fractions, around any body (IQN, arXiv:1806.06923).

    The body runs once per observation. Its features are multiplied with the embedding of each fraction and go through
    the head. Several sets of fractions can share one pass of the body: call `features` once, then `quantiles` for each
    set. In training mode a pass makes a power iteration in layers under spectral norm. Only `reset_noise` draws noise.

    With ``num_fixed_quantiles`` it is the network of QR-DQN (Dabney et al. 2017, arXiv:1710.10044). It has no
    embedding; its head returns the quantiles at the midpoints of equal segments of [0, 1]. Any other fraction has the
    quantile of its segment, so risk can be distorted here too.

    With ``dueling`` a value and an advantage stream are combined at each fraction, ``v + a - mean_a(a)``. With action
    blocks each block has its own value, and holds quantiles of the whole return given this block's action. Blocks are
    averaged (by the loss, and in ``chosen_action_value``), never summed.

    Args:
        body: module with ``in_keys``, ``out_features`` and ``forward(*tensors) -> [*B, out_features]``.
        num_actions: actions ``A`` (of each block), at least 1.
        num_blocks: number ``N`` of action blocks; None for one action without a block dimension.
        num_cosines: number of cosine features of a fraction, at least 1.
        cosine_start: first cosine index, see `CosineEmbedding`.
        cosine_activation: activation of the embedding, ``"relu"`` or ``"leaky_relu"``.
        hidden_sizes: hidden layers of the head (of each stream); empty for a linear head.
        dueling: whether to split value and advantages (Wang et al. 2016, arXiv:1511.06581).
        noisy: whether the head's layers are noisy (Fortunato et al. 2018, arXiv:1706.10295); see `reset_noise`.
        num_fixed_quantiles: number ``K`` of quantiles of each action at fixed fractions, at least 1; ``num_cosines``,
            ``cosine_start`` and ``cosine_activation`` then have no effect. None embeds any fraction.
        head: your own head, from ``[*B, K, F]`` to ``[*B, K, A]`` or ``[*B, K, N, A]``, such as a `QuantileDecoder`
            with transformer streams; ``hidden_sizes`` then has no effect. With fixed fractions it maps ``[*B, F]`` to
            ``[*B, K, A]``, or ``[*B, K * N, A]`` with blocks.

    Raises:
        TypeError: the body has no ``in_keys`` or no ``out_features``.
        ValueError: a size is below 1, or ``dueling`` or ``noisy`` is given together with ``head``.
    """

    def __init__(
        self,
        body: nn.Module,
        num_actions: int,
        *,
        num_blocks: int | None = None,
        num_cosines: int = 64,
        cosine_start: int = 0,
        cosine_activation: CosineActivation = "relu",
        hidden_sizes: Sequence[int] = (512,),
        dueling: bool = False,
        noisy: bool = False,
        num_fixed_quantiles: int | None = None,
        head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        require_body(body)
        if num_actions < 1 or (num_blocks is not None and num_blocks < 1):
            raise ValueError(f"num_actions and num_blocks must be at least 1, got {num_actions} and {num_blocks}")
        if num_fixed_quantiles is not None and num_fixed_quantiles < 1:
            raise ValueError(f"num_fixed_quantiles must be at least 1, got {num_fixed_quantiles}; QR-DQN has 200")
        if head is not None and (dueling or noisy):
            raise ValueError(
                f"a given head is taken as it is, got {dueling=} and {noisy=} too; build the head with them"
            )
        features = width_of(body)
        self.num_actions = num_actions
        self.num_blocks = num_blocks
        self.body = body
        self.num_fixed_quantiles = num_fixed_quantiles
        slots = num_blocks  # each has separate advantages and a separate value
        if num_fixed_quantiles is None:
            self.embedding = CosineEmbedding(num_cosines, features, start=cosine_start, activation=cosine_activation)
        else:
            slots = num_fixed_quantiles * (num_blocks or 1)
        if head is None and (dueling or slots is not None):
            stream = partial(MLP, hidden_sizes=hidden_sizes, noisy=noisy)
            head = QuantileDecoder(
                features, num_actions, num_blocks=slots, dueling=dueling, advantage=stream, value=stream
            )
        self.head = MLP(features, hidden_sizes, num_actions, noisy=noisy) if head is None else head
        # collected once: a search through all modules twice per update costs 2 % of a small update
        self._noisy_layers = tuple(module for module in self.modules() if isinstance(module, NoisyLinear))

    @property
    def in_keys(self) -> list[str]:
        """Return the keys of the inputs in order: the body's, then ``taus`` unless they are fixed."""
        return [*cast("list[str]", self.body.in_keys), *([] if self.num_fixed_quantiles else ["taus"])]

    @property
    def out_keys(self) -> list[str]:
        """Key of the output."""
        return ["quantile_values"]

    def as_tensordict_module(self) -> TensorDictModule:
        """Return this network as a TensorDictModule that reads `in_keys` and writes ``quantile_values``."""
        return TensorDictModule(self, in_keys=self.in_keys, out_keys=self.out_keys)

    def forward(self, *inputs: Tensor, taus: Tensor | None = None) -> Tensor:
        """Return the quantiles of every action.

        Args:
            *inputs: the body's inputs in the order of its ``in_keys``, then ``taus`` unless fixed or given by name.
            taus: fractions in [0, 1], ``[*B, K]``; None for all fixed fractions.

        Returns:
            Return of each action at each fraction, in reward units, ``[*B, K, A]`` or ``[*B, K, N, A]``.
        """
        if taus is None and self.num_fixed_quantiles is None:
            if len(inputs) != len(self.in_keys):
                raise TypeError(f"a tensor is needed for each of {self.in_keys}, got {len(inputs)}; draw taus too")
            *inputs, taus = inputs  # type: ignore[assignment]
        return self.quantiles(self.features(*inputs), taus)

    def features(self, *inputs: Tensor) -> Tensor:
        """Run the body.

        Args:
            *inputs: the body's inputs, in the order of its ``in_keys``.

        Returns:
            Features of the observations, ``[*B, F]``.
        """
        return self.body(*inputs)

    def quantiles(self, features: Tensor, taus: Tensor | None = None) -> Tensor:
        """Run the embedding and the head.

        Args:
            features: output of `features`, ``[*B, F]``.
            taus: fractions in [0, 1], ``[*B, K]``, or one row for all observations, ``[K]``; None for all
                fixed fractions.

        Returns:
            Return of each action at each fraction, in reward units, ``[*B, K, A]`` or ``[*B, K, N, A]``.

        Raises:
            ValueError: the batch shapes of ``features`` and ``taus`` differ, or there are no ``taus``.
        """
        if taus is None:
            if self.num_fixed_quantiles is None:
                raise ValueError("taus must be given, got None; only a network with num_fixed_quantiles has its own")
            return self._fixed(features)
        if taus.dim() > 1 and taus.shape[:-1] != features.shape[:-1]:
            raise ValueError(
                f"taus must have the batch shape of the features {tuple(features.shape[:-1])} and one more dimension, "
                f"got {tuple(taus.shape)}; draw a row of taus per observation, or one for all"
            )
        if self.num_fixed_quantiles is None:
            return self.head(features.unsqueeze(-2) * self.embedding(taus))
        quantiles, axis = self._fixed(features), features.dim() - 1
        segment = (taus * self.num_fixed_quantiles).long().clamp(max=self.num_fixed_quantiles - 1)
        if taus.dim() == 1:
            return quantiles.index_select(axis, segment)
        segment = segment.reshape(*segment.shape, *(1 for _ in quantiles.shape[axis + 1 :]))
        return quantiles.gather(axis, segment.expand(*taus.shape, *quantiles.shape[axis + 1 :]))

    def action_value(self, features: Tensor, taus: Tensor | None = None) -> Tensor:
        """Return the means of the quantiles at some fractions.

        An affine head maps the mean of its inputs to the mean of its outputs, so it runs only once.

        Args:
            features: output of `features`, ``[*B, F]``.
            taus: see `quantiles`.

        Returns:
            Value of each action, in reward units, ``[*B, A]`` or ``[*B, N, A]``, in float32 or wider.

        Raises:
            ValueError: see `quantiles`.
        """
        if taus is None or taus.dim() > 1 or not self._can_average_first:
            return at_least_float32(self.quantiles(features, taus)).mean(dim=features.dim() - 1)
        embedding = at_least_float32(self.embedding(taus)).mean(dim=0)
        return at_least_float32(self.head(features * embedding.to(self.embedding.weight.dtype)))

    @property
    def _can_average_first(self) -> bool:
        """Return whether the mean over fractions may be taken before the head, given the current modules."""
        is_own = type(self).quantiles is not QuantileNetwork.quantiles  # of a subclass
        if is_own or self.num_fixed_quantiles is not None or type(self.embedding) is not CosineEmbedding:
            return False
        return is_affine(self.head)

    def _fixed(self, features: Tensor) -> Tensor:
        """Return the quantiles at the fixed fractions, ``[*B, K, (N,) A]``."""
        blocks = () if self.num_blocks is None else (self.num_blocks,)
        shape = (*features.shape[:-1], self.num_fixed_quantiles, *blocks, self.num_actions)
        return self.head(features).reshape(shape)

    def reset_noise(self, generator: torch.Generator | None = None) -> None:
        """Draw new noise in every noisy layer, including those of the body.

        Args:
            generator: source of randomness; default: torch's global one.
        """
        for layer in self._noisy_layers:
            layer.reset_noise(generator)

    def zero_noise(self) -> None:
        """Make every noisy layer use its mean weights until the next `reset_noise`."""
        for layer in self._noisy_layers:
            layer.zero_noise()


def is_affine(head: nn.Module) -> bool:
    """Return whether a head is known to map the mean of inputs to the mean of outputs, and has no hooks."""
    if is_observed(head):
        return False
    if type(head) is QuantileDecoder:
        return is_affine(head.advantage) and (head.value is None or is_affine(head.value))
    if type(head) is MLP:
        return len(head.layers) == 1 and is_affine(head.layers[0])
    return type(head) in (nn.Linear, NoisyLinear)


def spectral_layers(network: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules that make power iterations: our layers, and torch's parametrizations."""
    for module in network.modules():
        if isinstance(module, SpectralConv2d):
            yield module
        elif isinstance(module, ParametrizationList):
            yield from module.children()


def dropout_layers(network: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules that drop units: dropout layers, and attention layers with dropout."""
    for module in network.modules():
        dropout = module.p if isinstance(module, DROPOUT) else getattr(module, "dropout", 0)
        if isinstance(module, (*DROPOUT, TransformerLayer, nn.MultiheadAttention)) and dropout > 0:
            yield module


def without_dropout(network: nn.Module) -> None:
    """Disable dropout, whether or not the network is in training mode."""
    for layer in dropout_layers(network):
        layer.training = False


def unwrap_network(network: nn.Module) -> tuple[QuantileNetwork, list[NestedKey]]:
    """Return a quantile network and the keys of its observations.

    Args:
        network: a `QuantileNetwork`, or a TensorDictModule around one; the last key of the module must be that of the
            taus, unless they are fixed.

    Returns:
        The quantile network, and the keys except that of the taus.

    Raises:
        TypeError: ``network`` is neither of the two.
    """
    inner = network.module if isinstance(network, TensorDictModule) else network
    if not isinstance(inner, QuantileNetwork):
        raise TypeError(
            f"network must be a QuantileNetwork or a TensorDictModule around one, got {type(network).__name__} around "
            f"{type(inner).__name__}; wrap a body of your own with QuantileNetwork(body, num_actions)"
        )
    keys = list(cast("list[NestedKey]", network.in_keys))
    return inner, keys if inner.num_fixed_quantiles else keys[:-1]
