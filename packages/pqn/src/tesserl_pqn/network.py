"""The Q-network: a body, and a head that returns a value, or quantiles, of each action."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

from tensordict.nn import TensorDictModule
from torch import Tensor, nn

from tesserl_nn_components import MLP, QuantileDecoder, require_body, width_of
from tesserl_policy import mask_actions
from tesserl_pqn.functional import greedy_quantiles


class QNetwork(nn.Module):
    """Return the value of every action, or quantiles of its return, around any body.

    PQN (Gallici et al. 2024, arXiv:2407.04811) learns without target networks because LayerNorm bounds the growth of
    the values. The hidden layers of this head have LayerNorm before their activations; give the body LayerNorm, too.

    Args:
        body: module with ``in_keys``, ``out_features`` and ``forward(*tensors) -> [*B, out_features]``.
        num_actions: actions ``A``, at least 1.
        num_quantiles: quantiles ``K`` of each action at the midpoints ``(2i + 1) / 2K`` (QR-DQN, Dabney et al. 2017,
            arXiv:1710.10044), at least 1; None for one value of each action.
        hidden_sizes: hidden layers of the head (of each stream); empty for a linear head.
        layer_norm: LayerNorm before the activation of each hidden layer of the head.
        dueling: whether to split value and advantages (Wang et al. 2016, arXiv:1511.06581).
        head: a head of your own, from ``[*B, F]`` to ``[*B, A]``, or ``[*B, K, A]`` with quantiles;
            ``hidden_sizes`` and ``layer_norm`` then have no effect.

    Raises:
        TypeError: the body has no ``in_keys`` or no ``out_features``.
        ValueError: a size is below 1, or ``dueling`` is given together with ``head``.
    """

    def __init__(
        self,
        body: nn.Module,
        num_actions: int,
        *,
        num_quantiles: int | None = None,
        hidden_sizes: Sequence[int] = (),
        layer_norm: bool = True,
        dueling: bool = False,
        head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        require_body(body)
        if num_actions < 1 or (num_quantiles is not None and num_quantiles < 1):
            raise ValueError(f"num_actions and num_quantiles must be at least 1, got {num_actions} and {num_quantiles}")
        if head is not None and dueling:
            raise ValueError("a given head is taken as it is, got dueling=True too; build the head with it")
        self.num_actions = num_actions
        self.num_quantiles = num_quantiles
        self.body = body
        if head is None:
            stream = partial(MLP, hidden_sizes=hidden_sizes, layer_norm=layer_norm)
            features = width_of(body)
            if dueling or num_quantiles is not None:
                head = QuantileDecoder(
                    features, num_actions, num_blocks=num_quantiles, dueling=dueling, advantage=stream, value=stream
                )
            else:
                head = stream(features, out_features=num_actions)
        self.head = head

    @property
    def in_keys(self) -> list[str]:
        """Return the keys of the inputs, those of the body."""
        return list(cast("list[str]", self.body.in_keys))

    @property
    def out_keys(self) -> list[str]:
        """Key of the output."""
        return ["action_value" if self.num_quantiles is None else "quantile_values"]

    def as_tensordict_module(self) -> TensorDictModule:
        """Return this network as a TensorDictModule from `in_keys` to `out_keys`."""
        return TensorDictModule(self, in_keys=self.in_keys, out_keys=self.out_keys)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return values of every action, ``[*B, A]``, or quantiles, ``[*B, K, A]``, in reward units.

        Args:
            *inputs: the body's inputs, in the order of its ``in_keys``, and then the mask of actions if there is one,
                true for allowed actions, bool ``[*B, A]``. Forbidden actions get the smallest finite value.
        """
        number = len(cast("list[str]", self.body.in_keys))
        outputs: Tensor = self.head(self.body(*inputs[:number]))
        if len(inputs) == number:
            return outputs
        mask = inputs[number]
        return mask_actions(outputs, mask if self.num_quantiles is None else mask.unsqueeze(-2).expand_as(outputs))

    def expectation(self, outputs: Tensor) -> Tensor:
        """Return the value of every action, ``[*B, A]``, from the output of `forward`; for quantiles, their mean."""
        return outputs if self.num_quantiles is None else outputs.mean(dim=-2)

    def bootstrap(self, outputs: Tensor) -> Tensor:
        """Return the bootstrap of a target from the output of `forward`.

        Returns:
            The largest value, ``[*B]``, or the quantiles of the action with the largest mean, ``[*B, K]``.
        """
        return outputs.amax(dim=-1) if self.num_quantiles is None else greedy_quantiles(outputs)


def unwrap_network(network: nn.Module) -> QNetwork:
    """Return a Q-network, taken out of its TensorDictModule if it is in one.

    Raises:
        TypeError: ``network`` is neither of the two.
    """
    inner = network.module if isinstance(network, TensorDictModule) else network
    if not isinstance(inner, QNetwork):
        raise TypeError(
            f"network must be a QNetwork or a TensorDictModule around one, got {type(inner).__name__}; wrap a body of "
            "your own with QNetwork(body, num_actions)"
        )
    return inner
