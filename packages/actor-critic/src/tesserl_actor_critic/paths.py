"""From the inputs through a body to a head, with the state of a body that has one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from tensordict import NestedKey
from torch import Tensor, nn

from tesserl_nn_components.calls import run
from tesserl_policy import mask_actions


class Path(nn.Module):
    """A body and a head as one module, for a TensorDictModule.

    Args:
        body: maps inputs to features, a recurrent one also to its new state.
        head: maps features to one tensor or several.
        recurrent: whether the body has a state.
        masked: whether a mask of the head's only output follows the body's inputs.
    """

    def __init__(self, body: nn.Module, head: nn.Module, *, recurrent: bool, masked: bool = False) -> None:
        super().__init__()
        self.body = body
        self.head = head
        self.recurrent = recurrent
        self.masked = masked

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run both.

        Args:
            *inputs: see `run_body`; with a mask behind those of the body's ``in_keys``.

        Returns:
            What the head returns, then the new state; of sequences the state after the last step, at every step,
            because those between are not known.
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
        inputs: those of its ``in_keys``; for a recurrent one then ``is_init`` and the state, that before the first step
            ``[N, layers, F]`` or, of sequences, that before every step ``[N, T, layers, F]``.
        recurrent: whether the body has a state.

    Returns:
        The features, and the new state of a recurrent body.
    """
    if not recurrent:
        return (run(body, *inputs),)
    num_inputs = len(cast("list[NestedKey]", body.in_keys))
    is_init, state = inputs[num_inputs], inputs[num_inputs + 1 :]
    if is_init.dim() == 3:  # sequences [N, T, 1]: the body makes the states between the steps itself
        state = [each[:, 0] if each.dim() == 4 else each for each in state]
    return body(*inputs[:num_inputs], is_init, *state)


def split_mask(inputs: tuple[Tensor, ...], num_inputs: int) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return the inputs without the mask of actions that follows the first ones, and the mask."""
    return (*inputs[:num_inputs], *inputs[num_inputs + 1 :]), inputs[num_inputs]


def as_tuple(outputs: Tensor | Sequence[Tensor], mask: Tensor | None = None) -> tuple[Tensor, ...]:
    """Return one tensor, or several, as a tuple.

    Args:
        outputs: of a head.
        mask: true for allowed actions, in the shape of logits, the head's only output; None masks nothing.

    Returns:
        The tensors.
    """
    if isinstance(outputs, Tensor):
        return (outputs if mask is None else mask_actions(outputs, mask),)
    return tuple(outputs)
