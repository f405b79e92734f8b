"""A base class of torchrl losses that register their networks directly and call them without TensorDicts."""

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
"""A number; under ``torch.compile`` the buffer that holds it."""


class DirectLossModule(LossModule):
    """Register the networks of a loss directly, without torchrl's functional parameters.

    A subclass names its keys in ``_all_out_keys`` and ``_required_keys``, returns `_output` of `results` from
    ``forward``, and names in ``_coefficients`` the attributes that schedules set. Each of these is a buffer, so that a
    compiled loss is not recompiled for another value. An assignment (``loss.beta = 0.2``) writes into the buffer. Eager
    code uses plain numbers. It reads them from the buffer only after other code has written into it, because a read
    synchronises with the GPU. The buffers are not in the state dict, since a schedule sets them again.

    The parameters of a `ReferencePolicy` are not among ``parameters()``.

    Set ``reads_buffers`` before a CUDA graph is recorded. Eager code then uses the buffers too, so that a replay uses
    values that were assigned after the recording.
    """

    reads_buffers = False
    _coefficients: tuple[str, ...] = ()
    _is_direct = False
    """True if no network is a torchrl module, which would read torchrl's exploration type and recurrent mode."""
    _forward_returns_results = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "forward" in cls.__dict__:  # a `forward` that is overridden without `results` may do more
            cls._forward_returns_results = "results" in cls.__dict__

    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[str, float | None] = {}
        self._is_zero: dict[str, bool] = {}
        self._versions: dict[str, int] = {}
        self._selected_keys: list[NestedKey] | None = None
        self._forward_pre_hooks.clear()  # removes torchrl's check that target networks are updated: this loss has none

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call `forward`; skip torchrl's wrappers if networks are called directly and a batch is the only argument."""
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
        """False: the networks are registered directly."""
        return False

    # --- keys

    @property
    def out_keys(self) -> list[Any]:
        """Keys of the results of a call."""
        return self._all_out_keys if self._selected_keys is None else self._selected_keys

    @property
    def out_keys_source(self) -> list[Any]:
        """Keys of the results of a call if none are selected."""
        return self._all_out_keys

    def select_out_keys(self, *out_keys: NestedKey) -> DirectLossModule:
        """Restrict the results of later calls to some entries.

        Args:
            *out_keys: names in ``out_keys_source``.

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
        """Update the keys that a call reads; torchrl calls this when keys are set."""
        self.in_keys: list[NestedKey] = self._required_keys()

    @property
    @abstractmethod
    def _all_out_keys(self) -> list[Any]:
        """Keys of the results of a call if none are selected."""

    @abstractmethod
    def _required_keys(self) -> list[Any]:
        """Return the keys that every call reads."""

    def results(self, tensordict: TensorDictBase) -> dict[Any, Tensor]:
        """Return all entries of a call, selected or not, in a dict.

        A training loop calls it instead of the loss. It skips torchrl's wrappers (hooks, keyword arguments, exploration
        type and recurrent mode) and the TensorDict of the results, which together cost as much as a layer of a small
        network.

        Args:
            tensordict: the batch.
        """
        return dict(self(tensordict).items())  # default, for a loss without a faster implementation

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
            self._versions[name] = buffer._version  # torch increments it with each write
        else:
            self._versions.pop(name, None)

    @property
    def zero_coefficients(self) -> tuple[str, ...]:
        """Names of the coefficients that are 0; compiled and recorded code omits their terms."""
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
        """Read a buffer that was written, copied or cast; keep the exact number if the buffer only rounds it."""
        number, written = self._numbers[name], float(buffer)
        is_rounded = number is not None and float(torch.tensor(number, dtype=buffer.dtype)) == written
        self._remember(name, number if is_rounded else written)

    # --- parameters

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Iterate over the trained parameters, without those of a reference.

        Args:
            prefix: prefix of every name.
            recurse: whether to include submodules.

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
        """Initialise the trained parameters again, by calling ``reset_parameters`` of every layer.

        Layers with frozen parameters and references do not change.

        Args:
            parameters: torchrl's argument for functional parameters, which this loss does not have.

        Raises:
            TypeError: a layer that has parameters has no ``reset_parameters``; then nothing changes.
            ValueError: ``parameters`` is not None.
        """
        if parameters is not None:
            raise ValueError("parameters must be None, got functional ones; this loss holds its networks as they are")
        reset_networks(self._networks_to_reset())

    def _networks_to_reset(self) -> list[nn.Module]:
        return [child for child in self.children() if not isinstance(child, ReferencePolicy)]


def is_used(coefficient: Coefficient | None) -> bool:
    """Return whether a coefficient is not 0; always true for a tensor, see ``_read_coefficients``."""
    return isinstance(coefficient, Tensor) or bool(coefficient)


def check_reduction(reduction: str) -> None:
    """Reject a reduction that is not ``"mean"``, ``"sum"`` or ``"none"``."""
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction must be one of {', '.join(get_args(Reduction))}, got {reduction!r}")


def reset_networks(networks: Iterable[nn.Module]) -> None:
    """Call ``reset_parameters`` of every trained layer, inner layers first."""
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
    """Return whether any parameter is trained, or ``default`` if there are no parameters."""
    flags = [parameter.requires_grad for parameter in parameters]
    return any(flags) if flags else default
