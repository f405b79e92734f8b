"""The LSTM cell that torch takes on every device but the CPU, for the simulated device."""

import torch
from torch import Tensor


def cell(
    from_input: Tensor,
    from_hidden: Tensor,
    before: Tensor,
    input_bias: Tensor | None = None,
    hidden_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the hidden state, the state of the cell and the four gates, ``[N, 4 H]``."""
    gates = from_input + from_hidden
    for bias in (input_bias, hidden_bias):
        gates = gates if bias is None else gates + bias
    enters, stays, new, leaves = gates.chunk(4, dim=1)
    enters, stays, new, leaves = enters.sigmoid(), stays.sigmoid(), new.tanh(), leaves.sigmoid()
    after = stays * before + enters * new
    return leaves * after.tanh(), after, torch.cat([enters, stays, new, leaves], dim=1)


def cell_backward(
    hidden_gradient: Tensor | None, gradient: Tensor | None, before: Tensor, after: Tensor, gates: Tensor, bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the gates, of the state before and of the biases."""
    enters, stays, new, leaves = gates.chunk(4, dim=1)
    squashed = after.tanh()
    hidden_gradient = torch.zeros_like(after) if hidden_gradient is None else hidden_gradient
    of_cell = hidden_gradient * leaves * (1 - squashed**2)
    of_cell = of_cell if gradient is None else of_cell + gradient
    parts = [
        of_cell * new * enters * (1 - enters),
        of_cell * before * stays * (1 - stays),
        of_cell * enters * (1 - new**2),
        hidden_gradient * squashed * leaves * (1 - leaves),
    ]
    of_gates = torch.cat(parts, dim=1)
    return of_gates, of_cell * stays, of_gates.sum(dim=0) if bias else of_gates.new_empty(0)


LIBRARY = torch.library.Library("aten", "IMPL", "CPU")  # must live as long as the process
LIBRARY.impl("_thnn_fused_lstm_cell", cell)
LIBRARY.impl("_thnn_fused_lstm_cell_backward_impl", cell_backward)
