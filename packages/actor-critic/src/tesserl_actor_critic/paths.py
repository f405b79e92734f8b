"""Run a body and a head in sequence, including the state of a recurrent body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from tensordict import NestedKey
from torch import Tensor, nn

from tesserl_nn_components.calls import run
from tesserl_policy import mask_actions


class Path(nn.Module):
    """A body and a head combined to one module, for a TensorDictModule.

    Args:
        body: maps inputs to features; a recurrent body also returns its new state.
        head: maps features to one or several tensors.
        recurrent: whether the body has a state.
        masked: whether an action mask follows the body's inputs; the head then has one output, the logits.
    """

    def __init__(self, body: nn.Module, head: nn.Module, *, recurrent: bool, masked: bool = False) -> None:
        super().__init__()
        self.body = body
        self.head = head
        self.recurrent = recurrent
        self.masked = masked

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the body, then the head.

        Args:
            *inputs: see `run_body`; an action mask follows the inputs named by the body's ``in_keys``.

        Returns:
            The outputs of the head, then the new state. For sequences every step gets the state after the last step,
            because the body does not return the states in between.
        """
        mask: Tensor | None = None
        if self.masked:
            inputs, mask = split_mask(inputs, len(cast("list[NestedKey]", self.body.in_keys)))
        features, *state = run_body(self.body, inputs, recurrent=self.recurrent)
        if state and features.dim() == 3:
            state = [each.unsqueeze(1).expand(-1, features.shape[1], -1, -1) for each in state]
        return *as_tuple(self.head(features), mask), *state


def run_body(body: nn.Module, inputs: Sequence[Tensor], *, recurrent: bool) -> tuple[Tensor, ...]:
    """Run a body.

    Args:
        body: the body.
        inputs: the inputs named by its ``in_keys``. For a recurrent body ``is_init`` and the state follow: the state
            before the first step, ``[N, layers, F]``, or before every step of sequences, ``[N, T, layers, F]``.
        recurrent: whether the body has a state.

    Returns:
        The features, and the new state of a recurrent body.
    """
    if not recurrent:
        return (run(body, *inputs),)
    num_inputs = len(cast("list[NestedKey]", body.in_keys))
    is_init, state = inputs[num_inputs], inputs[num_inputs + 1 :]
    if is_init.dim() == 3:  # sequences [N, T, 1]: the body needs the state before the first step only
        state = [each[:, 0] if each.dim() == 4 else each for each in state]
    return body(*inputs[:num_inputs], is_init, *state)


def split_mask(inputs: tuple[Tensor, ...], num_inputs: int) -> tuple[tuple[Tensor, ...], Tensor]:
    """Split off the action mask that follows the first ``num_inputs`` inputs; return the other inputs and the mask."""
    return (*inputs[:num_inputs], *inputs[num_inputs + 1 :]), inputs[num_inputs]


def as_tuple(outputs: Tensor | Sequence[Tensor], mask: Tensor | None = None) -> tuple[Tensor, ...]:
    """Return the outputs of a head as a tuple, with the mask applied.

    Args:
        outputs: one or several tensors.
        mask: true for allowed actions, in the shape of the logits, which must be the only output; None for no mask.

    Returns:
        The tensors.
    """
    if isinstance(outputs, Tensor):
        return (outputs if mask is None else mask_actions(outputs, mask),)
    return tuple(outputs)
