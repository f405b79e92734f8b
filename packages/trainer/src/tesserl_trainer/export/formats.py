"""Write programs to files that run without this project: ONNX graphs or programs of ``torch.export``."""

import importlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from tesserl_trainer.networks.programs import ExportError, Inputs, Program, Tensors, random_inputs

Format = Literal["onnx", "pt2"]
BATCH_SIZES = (1, 2, 7)
"""Batch sizes that `largest_difference` compares."""

TOLERANCE = 1e-4
"""Largest accepted result of `largest_difference`."""


def require_packages(file_format: Format) -> None:
    """Check that the packages a format needs are installed."""
    packages = ("onnx", "onnxruntime", "onnxscript") if file_format == "onnx" else ()
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f'format onnx needs {" and ".join(missing)}; install "tesserl-trainer[onnx]"')


def serialize(program: Program, inputs: Inputs, file_format: Format) -> bytes:
    """Export a program for any batch size of at least 1 and any number of taus; return the content of the file."""
    # torch.export treats sizes of 0 and 1 as constants
    example: dict[str, Any] = random_inputs(inputs, 3, 5, torch.Generator().manual_seed(0))
    free = {name: torch.export.Dim(name, min=1) for name in ("batch", "num_taus")}
    sizes = {
        name: {axis: free[size] for axis, size in enumerate(spec["shape"]) if isinstance(size, str)}
        for name, spec in inputs.items()
    }
    try:
        with _quiet():
            if file_format == "pt2":
                file = io.BytesIO()
                torch.export.save(torch.export.export(program, (), example, dynamic_shapes=sizes), file)
                return file.getvalue()
            graph: Any = torch.onnx.export(
                program,
                kwargs=example,
                dynamic_shapes=sizes,
                input_names=list(example),
                output_names=list(program.specs()),
                dynamo=True,
                verbose=False,
            )
            return graph.model_proto.SerializeToString()  # the weights are inside this one file
    except Exception as error:
        reason: BaseException = error
        while reason.__cause__ is not None:  # torch wraps the cause in pages about its graph
            reason = reason.__cause__
        raise ExportError(f"torch {torch.__version__} cannot export this policy as {file_format}: {reason}") from error


def load(content: bytes, file_format: Format) -> Callable[[Tensors], Tensors]:
    """Load the result of `serialize` as a function; pass nothing else, because ``.pt2`` content is unpickled."""
    if file_format == "pt2":
        module = torch.export.load(io.BytesIO(content)).module()
        return lambda inputs: module(**inputs)
    onnxruntime = importlib.import_module("onnxruntime")  # optional, and slow to import
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Tensors) -> Tensors:
        outputs = session.run(names, {name: tensor.numpy() for name, tensor in inputs.items()})
        return {name: torch.from_numpy(output) for name, output in zip(names, outputs, strict=True)}

    return run


def largest_difference(
    program: Program, exported: Callable[[Tensors], Tensors], inputs: Inputs, *, seed: int = 0
) -> float:
    """Compare outputs on random observations, in batches of several sizes.

    Args:
        program: the original program.
        exported: runs the exported program.
        inputs: inputs of both.
        seed: seed of the observations.

    Returns:
        The largest difference between two outputs. A difference is divided by the largest output for its observation
        if that is above 1, because float32 is relative. For choices, the values or logits of the chosen actions are
        compared, so that either of two equally good actions is right. NaN if an output is NaN or an action does not
        exist.

    Raises:
        ExportError: names, shapes or dtypes of the outputs differ.
    """
    generator = torch.Generator().manual_seed(seed)
    largest = torch.zeros(())
    for batch_size in BATCH_SIZES:
        drawn = random_inputs(inputs, batch_size, 4 * batch_size, generator)
        with torch.no_grad():
            expected, got = program(**drawn), exported(drawn)
        if _signature(got) != _signature(expected):
            raise ExportError(
                f"expected the outputs {_signature(expected)}, the exported program has {_signature(got)}"
            )
        for output, other, scale in _comparisons(program, expected, got):
            allowed = scale.where(
                scale > torch.finfo(torch.float32).min, 0
            )  # the value that marks forbidden actions must not set the scale
            error = _largest(other - output) / _largest(allowed).clamp(min=1)
            largest = torch.maximum(largest, error.max())  # propagates NaN
    return float(largest)


def _comparisons(program: Program, expected: Tensors, got: Tensors) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield expected tensors, actual tensors, and tensors that give their scale, each ``[B, ...]``."""
    for name, output in expected.items():
        choices = program.choices(expected, got[name]) if name == "action" else []
        for values, chosen in choices:
            yield values.amax(-1), _values_of(values, chosen), values
        if not choices:
            yield output, got[name], output


def _largest(tensor: Tensor) -> Tensor:
    """Return the largest magnitude for each observation, ``[B]``."""
    return tensor.abs().reshape(len(tensor), -1).amax(dim=1)


def _values_of(values: Tensor, action: Tensor) -> Tensor:
    """Return the values of actions; NaN for an action that does not exist."""
    exists = (action >= 0) & (action < values.shape[-1])
    return values.gather(-1, action.where(exists, 0).unsqueeze(-1)).squeeze(-1).where(exists, torch.nan)


def _signature(outputs: Tensors) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (tuple(output.shape), str(output.dtype)) for name, output in outputs.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the messages of torch's exporters (checked with torch 2.13)."""
    names = "torch.onnx._internal.exporter._registration", "onnxscript.optimizer._constant_folding"
    loggers = [logging.getLogger(name) for name in names]  # about torchvision and constants
    before = [logger.disabled for logger in loggers]
    try:
        for logger in loggers:
            logger.disabled = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled
