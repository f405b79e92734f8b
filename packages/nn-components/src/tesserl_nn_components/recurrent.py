"""Memory: a body whose features depend on earlier observations."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

MemoryKind = Literal["gru", "lstm"]
_LAYERS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}


class RecurrentBody(nn.Module):
    """Add a GRU or an LSTM after a body.

    The state is an input and an output, never an attribute: the caller keeps it. It is ``h``, or ``h`` and ``c`` for an
    LSTM, ``[N, num_layers, hidden_size]`` each. It is set to zero before a step that begins an episode. Pass the names
    ``body`` and ``memory`` to :func:`freeze`; parts of the wrapped body are ``body.vision`` and so on.

    A sequence gives the same features as its steps one by one. The wrapped body processes all steps at once. The batch
    is then split in time wherever an episode begins in any row, and each piece goes through ``torch.nn.GRU`` (Cho et
    al. 2014, arXiv:1406.1078) or ``torch.nn.LSTM`` (Hochreiter & Schmidhuber 1997). A single step can be exported.
    ``torch.compile`` does not compile the memory of sequences.

    Args:
        body: any body; its features are the input of the memory.
        hidden_size: width of the state and of the features, at least 1.
        kind: ``"gru"`` or ``"lstm"``.
        num_layers: number of layers, at least 1.
        orthogonal: initialise all recurrent weights orthogonally and all biases to zero, as implementations of PPO do
            (Huang et al. 2022, "The 37 implementation details of proximal policy optimization"); False keeps PyTorch's
            initialisation.

    Raises:
        TypeError: if ``body`` has no ``in_keys`` or no ``out_features``.
        ValueError: if ``kind`` is unknown, or a size is below 1.
    """

    def __init__(
        self,
        body: nn.Module,
        hidden_size: int,
        *,
        kind: MemoryKind = "gru",
        num_layers: int = 1,
        orthogonal: bool = True,
    ) -> None:
        super().__init__()
        in_keys, width = getattr(body, "in_keys", None), getattr(body, "out_features", None)
        if not isinstance(in_keys, list) or not isinstance(width, int):
            raise TypeError(
                f"body must have in_keys and out_features, got {type(body).__name__}; use an encoder or fusion"
            )
        if kind not in _LAYERS:
            raise ValueError(f"kind must be one of {get_args(MemoryKind)}, got {kind!r}")
        if min(hidden_size, num_layers) < 1:
            raise ValueError(f"hidden_size and num_layers must be at least 1, got {hidden_size} and {num_layers}")
        self.kind = kind
        self.in_keys: list[str] = list(in_keys)
        self.state_keys = [("recurrent", "h")] if kind == "gru" else [("recurrent", "h"), ("recurrent", "c")]
        self.out_features = self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.body = body
        self.memory = _LAYERS[kind](width, hidden_size, num_layers, batch_first=True)
        if orthogonal:
            for name, parameter in self.memory.named_parameters():
                if name.startswith("weight"):
                    nn.init.orthogonal_(parameter)
                else:
                    nn.init.zeros_(parameter)

    def initial_state(self, batch_size: int, device: torch.device | str | None = None) -> tuple[Tensor, ...]:
        """Return the state at the start of an episode: zeros.

        Args:
            batch_size: number ``N`` of environments or sequences.
            device: device of the state; None for the device of the weights.

        Returns:
            One tensor ``[N, num_layers, hidden_size]`` for each of ``state_keys``.
        """
        weight = self.memory.all_weights[0][0]
        shape = batch_size, self.num_layers, self.hidden_size
        device = weight.device if device is None else device
        return tuple(torch.zeros(shape, dtype=weight.dtype, device=device) for _ in self.state_keys)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Compute features of one step, or of sequences of steps, of ``N`` environments.

        Args:
            *tensors: the inputs of the wrapped body, ``[N, ...]`` or ``[N, T, ...]``; then ``is_init``, bool,
                ``[N, 1]`` or ``[N, T, 1]``, true where a step begins an episode; then the state before the (first)
                step, one ``[N, num_layers, hidden_size]`` for each of ``state_keys``.

        Returns:
            Features ``[N, hidden_size]`` or ``[N, T, hidden_size]``, and the state after the (last) step in the shape
            and dtype of the given state.

        Raises:
            ValueError: if the number of tensors, a shape or the dtype of ``is_init`` is wrong.
        """
        num_inputs = len(self.in_keys)
        if len(tensors) != num_inputs + 1 + len(self.state_keys):
            names = [*self.in_keys, "is_init", *self.state_keys]
            raise ValueError(f"the body takes one tensor for each of {names}, got {len(tensors)} tensors")
        is_init, state = tensors[num_inputs], tensors[num_inputs + 1 :]
        features: Tensor = self.body(*tensors[:num_inputs])
        self._check(features, is_init, state)
        compute = self._step if is_init.dim() == 2 else self._sequences
        features, after = compute(features, is_init, state)
        # Under autocast, an LSTM returns its state in half precision
        return features, *(new.to(old.dtype) for new, old in zip(after, state, strict=True))

    def _step(self, features: Tensor, is_init: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run the cells for one step, in less than half the time of ``nn.GRU`` on a sequence of length 1."""
        before = [part.masked_fill(is_init.unsqueeze(-1), 0).unbind(1) for part in state]
        layers: list[tuple[Tensor, ...]] = []
        for weights, *parts in zip(self.memory.all_weights, *before, strict=True):
            if self.kind == "gru":
                after: tuple[Tensor, ...] = (torch.gru_cell(features, parts[0], *weights),)
            else:
                after = torch.lstm_cell(features, parts, *weights)
            features = after[0]
            layers.append(after)
        return features, tuple(torch.stack(part, dim=1) for part in zip(*layers, strict=True))

    @torch.compiler.disable  # the split depends on data, and dynamo does not support recurrent modules
    def _sequences(
        self, features: Tensor, is_init: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Split the steps wherever an episode begins in any row, and run the layers over each piece."""
        starts = is_init.squeeze(-1)
        any_starts: list[bool] = starts.any(dim=0).tolist()  # one synchronisation with the GPU
        cuts = [step for step, is_start in enumerate(any_starts) if step and is_start]
        hidden: Any = [part.transpose(0, 1) for part in state]  # [num_layers, N, hidden_size], torch's order
        outputs = []
        for begin, end in pairwise([0, *cuts, starts.shape[1]]):
            hidden = [part.masked_fill(starts[:, begin, None], 0).contiguous() for part in hidden]
            output, hidden = self.memory(features[:, begin:end], hidden[0] if self.kind == "gru" else tuple(hidden))
            hidden = [hidden] if self.kind == "gru" else hidden
            outputs.append(output)
        return torch.cat(outputs, dim=1), tuple(part.transpose(0, 1) for part in hidden)

    def _check(self, features: Tensor, is_init: Tensor, state: tuple[Tensor, ...]) -> None:
        """Check the shapes of the inputs.

        Raises:
            ValueError: if a shape is wrong.
        """
        lead = features.shape[:-1]
        if len(lead) not in (1, 2):
            raise ValueError(
                f"inputs must be one step [N, ...] or sequences [N, T, ...], got {tuple(lead)} before the data"
            )
        if is_init.shape != (*lead, 1) or is_init.dtype != torch.bool:
            raise ValueError(
                f"is_init must be bool with the shape {(*lead, 1)} of the inputs, got {is_init.dtype} with "
                f"{tuple(is_init.shape)}"
            )
        expected = lead[0], self.num_layers, self.hidden_size
        for key, part in zip(self.state_keys, state, strict=True):
            if part.shape != expected:
                raise ValueError(
                    f"state {key} must have the shape {expected}, [N, num_layers, hidden_size], got "
                    f"{tuple(part.shape)}; start with initial_state({lead[0]})"
                )
