"""Complete torchrl's contract for losses that hold their networks as they are and call them directly."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from torch import Tensor, nn
from torch.nn import Parameter
from torchrl.objectives import LossModule

from tesserl_policy.reference import ReferencePolicy

Reduction = Literal["mean", "sum", "none"]
Coefficient = float | Tensor
"""A number, or under ``torch.compile`` the buffer that holds it."""


class DirectLossModule(LossModule):
    """Hold the networks of a loss as they are, without torchrl's functional parameters.

    A subclass names its keys in ``_all_out_keys`` and ``_required_keys``, returns `_output` of `results` from
    ``forward``, and names in ``_coefficients`` the attributes that schedules set. Each is a buffer, so that a compiled
    loss is not compiled anew for another value. An assignment (``loss.beta = 0.2``) writes into the buffer. Eager code
    reads plain numbers, which are read from the buffer only after somebody else has written into it: a read makes a GPU
    wait. The buffers are not in the state dict, since a schedule sets them again.

    The parameters of a `ReferencePolicy` are not among ``parameters()``.

    Set ``reads_buffers`` before a CUDA graph is recorded: eager code then reads the buffers too, and a replay has the
    values that were assigned since.
    """

    reads_buffers = False
    _coefficients: tuple[str, ...] = ()
    _is_direct = False
    """True if no network is one of torchrl, which reads its exploration type and its recurrent mode."""
    _forward_returns_results = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "forward" in cls.__dict__:  # one that is defined without `results` may do more
            cls._forward_returns_results = "results" in cls.__dict__

    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[str, float | None] = {}
        self._is_zero: dict[str, bool] = {}
        self._versions: dict[str, int] = {}
        self._selected_keys: list[NestedKey] | None = None
        self._forward_pre_hooks.clear()  # torchrl's check that target networks are updated: there are none

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call `forward`; with a batch alone and networks that are called directly, past torchrl's way in to it."""
        if (
            self._is_direct
            and self._forward_returns_results
            and len(args) == 1
            and not kwargs
            and isinstance(args[0], TensorDictBase)
            and not (self._forward_hooks or self._forward_pre_hooks or self._backward_hooks or self._backward_pre_hooks)
            and not torch.compiler.is_compiling()
        ):
            return self._output(self.results(args[0]))
        return super().__call__(*args, **kwargs)

    @property
    def functional(self) -> bool:
        """False: the networks are registered as they are."""
        return False

    # --- keys

    @property
    def out_keys(self) -> list[Any]:
        """Keys of what a call returns."""
        return self._all_out_keys if self._selected_keys is None else self._selected_keys

    @property
    def out_keys_source(self) -> list[Any]:
        """Keys of what a call returns if none are selected."""
        return self._all_out_keys

    def select_out_keys(self, *out_keys: NestedKey) -> DirectLossModule:
        """Return only some entries from now on.

        Args:
            *out_keys: names among ``out_keys_source``.

        Returns:
            This loss.

        Raises:
            ValueError: a name is not among them.
        """
        unknown = [key for key in out_keys if key not in self._all_out_keys]
        if unknown:
            raise ValueError(f"out_keys must be among {self._all_out_keys}, got {unknown}")
        self._selected_keys = list(out_keys)
        return self

    def reset_out_keys(self) -> DirectLossModule:
        """Return all entries again.

        Returns:
            This loss.
        """
        self._selected_keys = None
        return self

    def _forward_value_estimator_keys(self, **_: Any) -> None:
        """Remember the keys that a call reads; torchrl calls this when keys are set."""
        self.in_keys: list[NestedKey] = self._required_keys()

    @property
    @abstractmethod
    def _all_out_keys(self) -> list[Any]:
        """Keys of what a call returns if none are selected."""

    @abstractmethod
    def _required_keys(self) -> list[Any]:
        """Return the keys that a call reads always."""

    def results(self, tensordict: TensorDictBase) -> dict[Any, Tensor]:
        """Return all entries of a call, selected or not, in a dict.

        A training loop calls it in place of the loss: torchrl's way in (hooks, keywords, its exploration type and its
        recurrent mode, which modules of torchrl read) and the TensorDict of the results cost as much as a layer of a
        small network.

        Args:
            tensordict: the batch.
        """
        return dict(self(tensordict).items())  # of a loss that has no faster way

    def _output(self, results: dict[Any, Tensor]) -> TensorDict:
        """Return the selected results of a call."""
        if self._selected_keys is not None:
            results = {key: results[key] for key in self._selected_keys}
        return TensorDict(results, [])

    # --- coefficients

    def __setattr__(self, name: str, value: Any) -> None:
        if name in type(self)._coefficients:
            self._set_coefficient(name, None if value is None else float(value))
        else:
            super().__setattr__(name, value)

    def _set_coefficient(self, name: str, number: float | None) -> None:
        buffer = self._buffers.get(name)
        if number is None or buffer is None:
            buffer = None if number is None else torch.tensor(number, device=self._default_device)
            self.register_buffer(name, buffer, persistent=False)
        else:
            buffer.fill_(number)
        self._remember(name, number)

    def _remember(self, name: str, number: float | None) -> None:
        buffer = self._buffers[name]
        self._numbers[name] = number
        self._is_zero[name] = number == 0
        if buffer is not None:
            self._versions[name] = buffer._version  # torch counts the writes into a tensor
        else:
            self._versions.pop(name, None)

    @property
    def zero_coefficients(self) -> tuple[str, ...]:
        """Names of the coefficients that are 0: their terms are left out of compiled and of recorded code."""
        return tuple(name for name, is_zero in self._is_zero.items() if is_zero)

    def _read_coefficients(self) -> dict[str, Any]:
        """Return all coefficients: numbers, or tensors under ``torch.compile`` and with ``reads_buffers``.

        A coefficient that is 0 is always 0.0.
        """
        buffers = self._buffers
        if self.reads_buffers or torch.compiler.is_compiling():
            return {name: 0.0 if self._is_zero[name] else buffers[name] for name in self._coefficients}
        for name, version in self._versions.items():
            buffer = buffers[name]
            if buffer is not None and buffer._version != version:
                self._read_buffer(name, buffer)
        return self._numbers

    def _read_buffer(self, name: str, buffer: Tensor) -> None:
        """Read a buffer that was written, copied or cast; keep an exact number that it only rounds."""
        number, written = self._numbers[name], float(buffer)
        is_rounded = number is not None and float(torch.tensor(number, dtype=buffer.dtype)) == written
        self._remember(name, number if is_rounded else written)

    # --- parameters

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Iterate over the parameters that are trained: those of a reference are not among them.

        Args:
            prefix: put before every name.
            recurse: whether to go into submodules.

        Returns:
            Names and parameters.
        """
        named = super().named_parameters(prefix=prefix, recurse=recurse)
        references = [child for child in self.children() if isinstance(child, ReferencePolicy)]
        if not references:
            return named
        frozen = {id(parameter) for reference in references for parameter in reference.parameters()}
        return ((name, parameter) for name, parameter in named if id(parameter) not in frozen)

    def reset_parameters_recursive(self, parameters: None = None) -> None:
        """Initialise the trained parameters anew, by ``reset_parameters`` of every layer.

        Layers whose parameters are frozen, and a reference, stay as they are.

        Args:
            parameters: torchrl's argument for functional parameters, which this loss does not have.

        Raises:
            TypeError: a layer with parameters of its own has no ``reset_parameters``; nothing was changed.
            ValueError: ``parameters`` is not None.
        """
        if parameters is not None:
            raise ValueError("parameters must be None, got functional ones; this loss holds its networks as they are")
        reset_networks(self._networks_to_reset())

    def _networks_to_reset(self) -> list[nn.Module]:
        return [child for child in self.children() if not isinstance(child, ReferencePolicy)]


def is_used(coefficient: Coefficient | None) -> bool:
    """Return whether a coefficient is not 0; a tensor never is, see ``_read_coefficients``."""
    return isinstance(coefficient, Tensor) or bool(coefficient)


def check_reduction(reduction: str) -> None:
    """Reject a reduction that is not ``"mean"``, ``"sum"`` or ``"none"``."""
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction must be one of {', '.join(get_args(Reduction))}, got {reduction!r}")


def reset_networks(networks: Iterable[nn.Module]) -> None:
    """Call ``reset_parameters`` of every layer that is trained, those inside a layer before the layer itself."""
    layers = list(dict.fromkeys(layer for network in networks for layer in reversed(list(network.modules()))))
    resets = [(layer, _reset_of(layer)) for layer in layers if _is_trained(layer.parameters(), default=True)]
    lacking = {
        type(layer).__name__
        for layer, reset in resets
        if reset is None and _is_trained(layer.parameters(recurse=False), default=False)
    }
    if lacking:
        raise TypeError(
            f"layers with parameters must have reset_parameters(), got {', '.join(sorted(lacking))} without it; define "
            "the method, or build a new loss"
        )
    for _, reset in resets:
        if reset is not None:
            reset()


def _reset_of(layer: nn.Module) -> Any:
    name = "_reset_parameters" if isinstance(layer, nn.MultiheadAttention) else "reset_parameters"
    return getattr(layer, name, None)


def _is_trained(parameters: Iterable[Parameter], *, default: bool) -> bool:
    """Return whether a parameter is trained; the default if there is none."""
    flags = [parameter.requires_grad for parameter in parameters]
    return any(flags) if flags else default
