"""A simulated accelerator: a device that no machine has, on which Tesserl runs with real numbers.

Its tensors say ``simulated:0`` and hold memory of the CPU. Within `simulation` every copy between the CPU and the
device and every wait for the device is counted at the line of Tesserl that causes it; tensors of the CPU and of the
device cannot be mixed. `CUDAGraph` and its companions have the names and the rules of ``torch.cuda``: a recorded step
is repeated on the memory that it saw, and must neither wait nor read a tensor of the CPU.

It cannot show the numerics of kernels, the order of streams, or races on pinned memory. It rests on a private function
of torch (`SUPPORTED` says whether this release has it).
"""

from __future__ import annotations

import sys
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

NAME = "simulated"
SUPPORTED = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
STANDARD_LIBRARY = sysconfig.get_path("stdlib")

WAIT, LATE_WAIT, DOWNLOAD, UPLOAD, PAGEABLE = "wait", "late wait", "download", "upload", "pageable upload"
WAITING = {
    "aten::_local_scalar_dense", "aten::_linalg_check_errors", "aten::_unique2", "aten::bincount", "aten::equal",
    "aten::is_nonzero", "aten::item", "aten::masked_select", "aten::nonzero", "aten::unique_consecutive",
    "aten::unique_dim",
}  # fmt: skip
"""Operations whose result the CPU needs before it can go on."""


class Place(NamedTuple):
    """A line of Tesserl, or of a test."""

    file: str
    function: str
    line: int

    @property
    def function_name(self) -> str:
        """File and function, which stay when lines move."""
        return f"{self.file}:{self.function}"

    def __str__(self) -> str:
        return f"{self.file}:{self.line} ({self.function})"


class Simulation:
    """Events of the device, by kind and place."""

    def __init__(self) -> None:
        self.events: Counter[tuple[str, Place]] = Counter()
        self.operations: list[str] | None = None  # names of all operations, if they are logged
        self.recording: list[tuple[Any, Any, Any, Any]] | None = None  # of a graph
        self.overwritten: list[tuple[Tensor, Tensor]] = []  # while a graph is recorded, and what was there
        self.launched = 0
        self.pinned: dict[int, Tensor] = {}  # by the place of their memory, which they keep alive

    def note(self, kind: str) -> None:
        """Count an event at the present line."""
        if self.recording is not None:
            raise RuntimeError(f"operation not permitted while a graph is recorded: {kind} at {present_place()}")
        self.events[kind, present_place()] += 1

    def by_kind(self) -> Counter[str]:
        """Return how often events have happened."""
        counts: Counter[str] = Counter()
        for (kind, _), number in self.events.items():
            counts[kind] += number
        return counts


_current: Simulation | None = None


def present_place() -> Place:
    """Return the innermost line that is neither torch's nor Python's nor this file's."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        own = "tesserl_" in name or not ("site-packages" in name or name.startswith((STANDARD_LIBRARY, "<")))
        if own and name != __file__:
            return Place(name.rpartition("/")[2], frame.f_code.co_name, frame.f_lineno)
        frame = frame.f_back
    return Place("a thread of torch", "backward", 0)


class SimulatedTensor(torch.Tensor):
    """A tensor of the device."""

    held: Tensor

    @staticmethod
    def __new__(cls, real: Tensor) -> SimulatedTensor:
        made: SimulatedTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            real.size(),
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            layout=real.layout,
            device=torch.device(NAME, 0),
        )
        made.held = real
        return made

    def __init__(self, real: Tensor) -> None:
        del real

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def untyped_storage(self) -> Any:
        return self.held.untyped_storage()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copy: Any = SimulatedTensor(self.held.clone())
        if getattr(self, "_is_param", False):
            copy = torch.nn.Parameter(copy, requires_grad=self.requires_grad)
        memo[id(self)] = copy
        return copy

    def __repr__(self) -> str:
        return f"SimulatedTensor({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the memory of the CPU, and note what it would cost."""
    name = func._schema.name
    leaves = list(tensors_in((args, kwargs)))
    here = [leaf for leaf in leaves if isinstance(leaf, SimulatedTensor)]
    elsewhere = [leaf for leaf in leaves if not isinstance(leaf, SimulatedTensor)]
    wanted = kwargs.get("device")
    device = None if wanted is None else torch.device(wanted)
    if name in ("aten::_to_copy", "aten::copy_"):
        return _copy(func, args, kwargs, device)
    if kwargs.get("pin_memory"):
        return _pinned(func(*args, **{**kwargs, "pin_memory": False}))
    on_device = bool(here) if device is None else device.type == NAME
    if here and elsewhere:
        _check_mixed(name, elsewhere)
    if here:
        _note_waits(name, args, kwargs)
    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    out = _launch(func, args, kwargs) if on_device else func(*_real(args), **_real(kwargs))
    known = {id(leaf.held): leaf for leaf in here}

    def wrap(value: Any) -> Any:
        if not isinstance(value, Tensor) or not on_device:
            return value
        return known.get(id(value)) if id(value) in known else SimulatedTensor(value)

    return mapped(wrap, out)


def _launch(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation of the device, and record it if a graph is recorded."""
    args, kwargs = _real(args), _real(kwargs)
    if _current is not None and _current.recording is not None:
        _current.overwritten += [(tensor, tensor.clone()) for tensor in _written(func, args, kwargs)]
    out = func(*args, **kwargs)
    if _current is not None:
        _current.launched += 1
        if _current.operations is not None:
            _current.operations.append(f"{func} {mapped(lambda leaf: leaf if _is_plain(leaf) else '-', args)}")
        if _current.recording is not None:
            _current.recording.append((func, args, kwargs, out))
    return out


def _written(func: Any, args: Any, kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """Yield the tensors that an operation writes into."""
    for place, argument in enumerate(func._schema.arguments):
        value = args[place] if place < len(args) else kwargs.get(argument.name)
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from tensors_in(value)


def _copy(func: Any, args: Any, kwargs: dict[str, Any], device: torch.device | None) -> Any:
    """Copy between tensors, or to another device or type."""
    makes = func._schema.name == "aten::_to_copy"
    source = args[0] if makes else args[1]
    from_device = isinstance(source, SimulatedTensor)
    if makes:
        to_device = from_device if device is None else device.type == NAME
        behind = bool(kwargs.get("non_blocking")) and to_device  # without pinned memory to go to the CPU waits
        kwargs = {key: value for key, value in kwargs.items() if key not in ("device", "non_blocking")}
    else:
        to_device = isinstance(args[0], SimulatedTensor)
        behind = bool(args[2] if len(args) > 2 else kwargs.get("non_blocking"))
        behind = behind and (to_device or is_pinned(args[0]))
    if from_device and to_device:
        out = _launch(func, args, kwargs)
        return SimulatedTensor(out) if makes else args[0]
    if _current is not None and (from_device or to_device):
        if behind and not from_device:
            _current.note(UPLOAD if is_pinned(source) else PAGEABLE)
        else:
            _current.note(DOWNLOAD if behind else WAIT)
    out = func(*_real(args), **kwargs)
    if not makes:
        return args[0]
    if to_device and out is source:
        out = out.clone()
    return SimulatedTensor(out) if to_device else out


def _check_mixed(name: str, elsewhere: list[Tensor]) -> None:
    """Refuse operations on tensors of both devices, as torch does; count an index of the CPU."""
    wrong = [tuple(leaf.shape) for leaf in elsewhere if leaf.dim()]
    if wrong and not name.startswith(("aten::index", "aten::_index_put")):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but got {NAME}:0 and cpu for {name}, shapes {wrong}"
        )
    if _current is None:
        return
    if wrong:
        _current.note(WAIT)
    elif _current.recording is not None:
        raise RuntimeError(f"a graph would keep the number of a CPU tensor: {name} at {present_place()}")


def _note_waits(name: str, args: Any, kwargs: dict[str, Any]) -> None:
    if _current is None:
        return
    by_mask = (
        name.startswith(("aten::index", "aten::_index_put"))
        and len(args) > 1
        and any(leaf.dtype in (torch.bool, torch.uint8) for leaf in tensors_in(args[1]))
    )
    fills = by_mask and "put" in name and isinstance(args[2], Tensor) and args[2].dim() == 0  # is a masked_fill
    repeats = name == "aten::repeat_interleave" and kwargs.get("output_size") is None
    if name in WAITING or (by_mask and not fills) or repeats:
        _current.note(WAIT)


def _real(tree: Any) -> Any:
    return mapped(lambda leaf: leaf.held if isinstance(leaf, SimulatedTensor) else leaf, tree)


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """Apply a function to the leaves of what an operation takes or returns."""
    if isinstance(tree, list | tuple):
        return type(tree)([mapped(function, item) for item in tree])
    if isinstance(tree, dict):
        return {key: mapped(function, item) for key, item in tree.items()}
    return function(tree)


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """Yield the tensors of what an operation takes or returns."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, list | tuple | dict):
        for item in tree.values() if isinstance(tree, dict) else tree:
            yield from tensors_in(item)


def _is_plain(leaf: Any) -> bool:
    return isinstance(leaf, bool | int | float | str)


def is_pinned(tensor: Tensor, *_: Any) -> bool:
    """Return whether a tensor lies in memory that was pinned."""
    if _current is None or isinstance(tensor, SimulatedTensor):
        return False
    return tensor.untyped_storage().data_ptr() in _current.pinned


def _pinned(tensor: Tensor) -> Tensor:
    if _current is not None:
        _current.pinned[tensor.untyped_storage().data_ptr()] = tensor
    return tensor


class Event:
    """Happens when the device has done the work that it was given before ``record``."""

    def __init__(self, **_: Any) -> None:
        self._launched = 0

    def record(self, *_: Any) -> None:
        self._launched = _current.launched if _current is not None else 0

    def synchronize(self) -> None:
        """Count a wait, a late one if the device has been given more work since."""
        if _current is not None:
            _current.note(WAIT if _current.launched == self._launched else LATE_WAIT)


class CUDAGraph:
    """Operations that are repeated on the memory that they saw when they were recorded."""

    def __init__(self) -> None:
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def replay(self) -> None:
        """Run the operations again; what they returned then is overwritten."""
        if _current is not None:
            _current.launched += 1
        with _disable_current_modes(), torch.no_grad():
            for func, args, kwargs, out in self.operations:
                inputs = {_memory(leaf) for leaf in tensors_in((args, kwargs))}
                again = func(*args, **kwargs)
                for old, new in zip(tensors_in(out), tensors_in(again), strict=True):
                    if _memory(old) not in inputs:
                        old.copy_(new)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@contextmanager
def graph(recorded: CUDAGraph, **_: Any) -> Iterator[None]:
    """Record the operations inside; they have no effect, but their results have memory."""
    if _current is None:
        raise RuntimeError("a graph can be recorded within a simulation only")
    _current.recording, random = recorded.operations, torch.get_rng_state()
    try:
        yield
    finally:
        _current.recording = None
        torch.set_rng_state(random)
        with _disable_current_modes(), torch.no_grad():
            while _current.overwritten:
                tensor, before = _current.overwritten.pop()
                tensor.copy_(before)


class _Stream:
    def wait_stream(self, _: Any) -> None:
        """Do nothing: there is one stream."""


class _Module(backend_registration._DummyBackendModule):  # type: ignore[misc]
    """``torch.simulated``, with what torch and Tesserl use of ``torch.cuda``."""

    Event, CUDAGraph, Stream = Event, CUDAGraph, _Stream
    graph = staticmethod(graph)

    def current_stream(self, *_: Any) -> _Stream:
        return _Stream()

    def stream(self, _: Any) -> Any:
        return nullcontext()

    def device(self, _: Any) -> Any:
        return nullcontext()

    def synchronize(self, *_: Any) -> None:
        if _current is not None:
            _current.note(WAIT)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def get_rng_state(self, *_: Any) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, *_: Any) -> None:
        """Do nothing: random numbers are those of the CPU."""


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Make tensors of numbers on the CPU and copy them, and let ``data`` be assigned: torch asks no dispatch mode."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if func == torch.Tensor.data.__set__ and isinstance(args[0], SimulatedTensor):
            args[0].held = args[1].held
        if func in (torch.tensor, torch.as_tensor) and device is not None and torch.device(device).type == NAME:
            made = args[0] if isinstance(args[0], Tensor) else torch.tensor(args[0], dtype=kwargs.get("dtype"))
            return made.to(device, kwargs.get("dtype") or made.dtype)
        return func(*args, **kwargs)


if SUPPORTED and not hasattr(torch, NAME):
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    _autocast = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    _autocast.fallback(torch.library.fallthrough_kernel)  # autocast passes through, without casting


def forget_events() -> None:
    """Count from here on."""
    if _current is not None:
        _current.events.clear()


@contextmanager
def simulation(*, log: bool = False) -> Iterator[Simulation]:
    """Give this process a device of the name ``simulated``, for the time of a ``with`` block.

    Args:
        log: keep the names of all operations with their numbers.
    """
    global _current  # backward runs in a thread of torch, which must see it too
    _current = Simulation()
    _current.operations = [] if log else None
    own = torch.Tensor.is_pinned, torch.Tensor.pin_memory
    torch.Tensor.is_pinned = is_pinned  # type: ignore[method-assign]
    torch.Tensor.pin_memory = lambda tensor, *_: _pinned(tensor.clone())  # type: ignore[method-assign]
    try:
        with _Functions(), _Mode():
            yield _current
    finally:
        _current = None
        torch.Tensor.is_pinned, torch.Tensor.pin_memory = own  # type: ignore[method-assign]
