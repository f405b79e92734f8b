"""Policies as programs that run without this project: an ONNX graph, or a program of ``torch.export``."""

import copy
import importlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor, nn

from tesserl_iqn import QuantileNetwork
from tesserl_nn_components import NoisyLinear

Format = Literal["onnx", "pt2"]
Tensors = dict[str, Tensor]

BATCH_SIZES = (1, 2, 7)
"""Numbers of observations that `largest_difference` compares."""

TOLERANCE = 1e-4
"""Largest difference that an exported program may have, as `largest_difference` measures it."""


class ExportError(Exception):
    """A policy cannot be exported, or what was exported does not compute what the policy computes."""


class Spec(TypedDict):
    """A tensor that a program takes or returns; sizes that may vary have names."""

    shape: list[int | str]
    dtype: str


@dataclass(frozen=True)
class Inputs:
    """What a program takes.

    Args:
        shapes: of one observation, by key.
        dtypes: uint8 or float32, by key.
        taus: whether the taus are an input too.
    """

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    taus: bool

    def specs(self) -> dict[str, Spec]:
        """Each input by its name."""
        specs = {key: Spec(shape=["batch", *shape], dtype=self.dtypes[key]) for key, shape in self.shapes.items()}
        return {**specs, "taus": Spec(shape=["batch", "num_taus"], dtype="float32")} if self.taus else specs

    def random(self, batch_size: int, num_taus: int, generator: torch.Generator) -> Tensors:
        """Draws pixels (0 to 255, or [0, 1] where they are floating point), standard normal observations, and taus."""
        drawn = {}
        for key, shape in self.shapes.items():
            if self.dtypes[key] == "uint8":
                drawn[key] = torch.randint(256, (batch_size, *shape), generator=generator, dtype=torch.uint8)
            else:
                draw = torch.rand if key == "pixels" else torch.randn
                drawn[key] = draw(batch_size, *shape, generator=generator)
        if self.taus:
            drawn["taus"] = torch.rand(batch_size, num_taus, generator=generator)
        return drawn


class PolicyProgram(nn.Module):
    """The greedy policy of a quantile network as a function of plain tensors: what is exported.

    It holds a copy of the network in evaluation mode, on the CPU, without noise: noisy layers become plain ones with
    their mean weights.

    Args:
        network: the network, its normalisation inside.
        taus: fixed fractions, ``[K]``; None makes them an input.
    """

    taus: Tensor | None

    def __init__(self, network: QuantileNetwork, taus: Tensor | None = None) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).to("cpu", torch.float32).requires_grad_(False)
        _replace_layers(self.network)
        self.register_buffer("taus", taus)
        self.eval()

    def specs(self) -> dict[str, Spec]:
        """Each output by its name."""
        blocks: list[int | str] = [] if self.network.num_blocks is None else [self.network.num_blocks]
        values = [*blocks, self.network.num_actions]
        specs = {
            "quantile_values": Spec(shape=["batch", "num_taus", *values], dtype="float32"),
            "action_value": Spec(shape=["batch", *values], dtype="float32"),
            "action": Spec(shape=["batch", *blocks], dtype="int64"),
        }
        if self.taus is not None:
            del specs["quantile_values"]
        return specs

    def forward(
        self, *, pixels: Tensor | None = None, observation: Tensor | None = None, taus: Tensor | None = None
    ) -> Tensors:
        """Evaluate all actions and choose the best.

        Args:
            pixels: ``[B, C, H, W]``, if the network takes them.
            observation: ``[B, F]``, if the network takes it.
            taus: fractions in [0, 1], ``[B, K]``, unless they are fixed.

        Returns:
            ``quantile_values`` ``[B, K, (N,) A]`` unless the taus are fixed, their mean ``action_value``
            ``[B, (N,) A]``, and the best ``action`` ``[B, (N)]``.
        """
        features = self.network.features(*(tensor for tensor in (pixels, observation) if tensor is not None))
        quantile_values = self.network.quantiles(features, taus if self.taus is None else self.taus)  # type: ignore[arg-type]
        action_value = quantile_values.mean(dim=1)
        outputs = {"action_value": action_value, "action": action_value.argmax(dim=-1)}
        return {"quantile_values": quantile_values, **outputs} if self.taus is None else outputs


class WindowedMaxPool(nn.Module):
    """``nn.AdaptiveMaxPool2d``, bit for bit, in operations that ONNX has (torch 2.13 cannot translate the original)."""

    def __init__(self, output_size: int | tuple[int, int]) -> None:
        super().__init__()
        self.output_size = (output_size, output_size) if isinstance(output_size, int) else output_size

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[B, C, H, W]`` to ``[B, C, *output_size]``."""
        for axis, num_windows in zip((2, 3), self.output_size, strict=True):
            size = images.shape[axis]
            # torch's windows reach from floor(i * size / n) to ceil((i + 1) * size / n)
            windows = [(i * size // num_windows, -(-(i + 1) * size // num_windows)) for i in range(num_windows)]
            maxima = [images.narrow(axis, start, stop - start).amax(axis) for start, stop in windows]
            images = torch.stack(maxima, axis)
        return images


def _replace_layers(module: nn.Module) -> None:
    """Replaces what a program does not need (noise) or cannot hold (adaptive pooling)."""
    for name, child in module.named_children():
        if isinstance(child, NoisyLinear):
            linear = nn.Linear(child.in_features, child.out_features, device="meta")
            linear.weight = child.weight_mu
            linear.bias = child.bias_mu  # type: ignore[assignment]  # None is fine: no bias
            setattr(module, name, linear)
        elif isinstance(child, nn.AdaptiveMaxPool2d):
            setattr(module, name, WindowedMaxPool(child.output_size))  # type: ignore[arg-type]
        else:
            _replace_layers(child)


def require_packages(file_format: Format) -> None:
    """Checks that what a format needs is installed.

    Raises:
        ExportError: a package is missing.
    """
    packages = ("onnx", "onnxruntime", "onnxscript") if file_format == "onnx" else ()
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f'format onnx needs {" and ".join(missing)}; install "tesserl-trainer[onnx]"')


def serialize(program: PolicyProgram, inputs: Inputs, file_format: Format) -> bytes:
    """Exports a program for any batch size of at least 1, and any number of taus.

    Args:
        program: what to export.
        inputs: what it takes.
        file_format: as what.

    Returns:
        The content of the file.

    Raises:
        ExportError: torch cannot export this policy.
    """
    # Sizes of 0 and 1 are taken for constants
    example: dict[str, Any] = inputs.random(3, 5, torch.Generator().manual_seed(0))
    batch, num_taus = torch.export.Dim("batch", min=1), torch.export.Dim("num_taus", min=1)
    sizes = {name: {0: batch, 1: num_taus} if name == "taus" else {0: batch} for name in example}
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
            return graph.model_proto.SerializeToString()  # one file: weights are not written beside it
    except Exception as error:
        reason: BaseException = error
        while reason.__cause__ is not None:  # torch wraps what happened in pages about its graph
            reason = reason.__cause__
        raise ExportError(f"torch {torch.__version__} cannot export this policy as {file_format}: {reason}") from error


def load(content: bytes, file_format: Format) -> Callable[[Tensors], Tensors]:
    """Makes a function of what `serialize` returned, and of nothing else: a ``.pt2`` file is unpickled."""
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
    program: PolicyProgram, exported: Callable[[Tensors], Tensors], inputs: Inputs, *, seed: int = 0
) -> float:
    """Compares outputs on random observations, in batches of several sizes.

    Args:
        program: what was exported.
        exported: runs the exported form.
        inputs: what both take.
        seed: of the observations.

    Returns:
        The largest difference between two outputs, over the largest value of its observation where that is above 1:
        what float32 can promise depends on it. Of actions, the values are compared, so that either of two equally good
        ones is right. NaN if an output is NaN or an action does not exist.

    Raises:
        ExportError: names, shapes or dtypes of the outputs differ.
    """
    generator = torch.Generator().manual_seed(seed)
    largest = torch.zeros(())
    for batch_size in BATCH_SIZES:
        drawn = inputs.random(batch_size, 4 * batch_size, generator)
        with torch.no_grad():
            expected, got = program(**drawn), exported(drawn)
        if _signature(got) != _signature(expected):
            raise ExportError(
                f"expected the outputs {_signature(expected)}, the exported program has {_signature(got)}"
            )
        for name, output in expected.items():
            other, scale = got[name], output
            if name == "action":
                scale = expected["action_value"]
                output, other = scale.amax(-1), _values_of(scale, other)
            error = _largest(other - output) / _largest(scale).clamp(min=1)
            largest = torch.maximum(largest, error.max())  # keeps a NaN
    return float(largest)


def _largest(tensor: Tensor) -> Tensor:
    """Largest magnitude of each observation, ``[B]``."""
    return tensor.abs().reshape(len(tensor), -1).amax(dim=1)


def _values_of(action_value: Tensor, action: Tensor) -> Tensor:
    """Values of actions; NaN for one that does not exist."""
    exists = (action >= 0) & (action < action_value.shape[-1])
    value = action_value.gather(-1, action.where(exists, 0).unsqueeze(-1)).squeeze(-1)
    return value.where(exists, torch.nan)


def _signature(outputs: Tensors) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (tuple(output.shape), str(output.dtype)) for name, output in outputs.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what torch's exporters say about themselves (checked with torch 2.13)."""
    names = "torch.onnx._internal.exporter._registration", "onnxscript.optimizer._constant_folding"
    loggers = [logging.getLogger(name) for name in names]  # that torchvision is missing, that a constant stays
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
