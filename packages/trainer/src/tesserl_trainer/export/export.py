"""``tesserl export``: write a trained policy to one file that runs without this project."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tesserl_storage.whole_files import write_atomically
from tesserl_trainer.algorithms.programs import load_program
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.export import formats as exporting
from tesserl_trainer.export.formats import BATCH_SIZES, TOLERANCE, Format
from tesserl_trainer.networks.programs import ExportError, Inputs, Program, observation_specs
from tesserl_trainer.running.run_directory import run_config
from tesserl_trainer.usage import ArgumentError, TakenError, check_places
from tesserl_training.checkpoints.run_checkpoints import Checkpoints


def export(
    run_dir: str | Path,
    *,
    format: Format = "onnx",  # noqa: A002 - the option's name
    taus: int | None = None,
    checkpoint: str = "best",
    output: str | Path | None = None,
    overwrite: bool = False,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the greedy policy of a run, including normalisation, and compare the file's outputs with the policy's.

    The file accepts any batch size. Its outputs are deterministic: noise is zero.

    Args:
        run_dir: directory of the run.
        format: ``"onnx"``, or ``"pt2"`` for ``torch.export``.
        taus: for ``iqn`` only: fix this number of midpoints, at least 1, distorted by ``iqn.risk``; None makes the
            taus an input, ``[batch, num_taus]``, used undistorted.
        checkpoint: ``"best"``, ``"latest"``, or the name of a directory in ``checkpoints/``.
        output: the file; by default ``policy.onnx`` or ``policy.pt2`` in the run's directory.
        overwrite: replace an existing file.
        overrides: ``key=value`` on top of the run's configuration.

    Returns:
        ``file``, ``format``, ``checkpoint``, ``inputs`` and ``outputs`` (shape and dtype by name),
        ``largest_difference`` (see ``formats.largest_difference``) and the ``batch_sizes`` that were compared.

    Raises:
        StorageError: the run or the checkpoint does not exist or is damaged.
        ExportError: a package is missing, torch cannot export this policy, or outputs differ by more than 1e-4; no
            file is written.
        TakenError: the file exists.
        ArgumentError: ``format`` or ``taus`` is out of its range, or the run's policy has no taus to fix.
    """
    if format not in ("onnx", "pt2"):
        raise ArgumentError(f"format must be onnx or pt2, got {format!r}")
    file = Path(run_dir) / f"policy.{format}" if output is None else Path(output)
    if file.exists() and not overwrite:
        raise TakenError(f"{file} is there already; replace it with --overwrite, or name another file")
    check_places({"--output": None if output is None else file})
    exporting.require_packages(format)
    config = run_config(Path(run_dir), ["device=cpu", *overrides])
    weights = Checkpoints(Path(run_dir)).load_weights(checkpoint)
    task = Task(config)
    program = load_program(task, weights, taus)
    inputs = observation_specs(task.layout) | program.more_inputs()
    difference = _write(file, program, inputs, format, overwrite=overwrite)
    return {
        "file": str(file),
        "format": format,
        "checkpoint": weights.path.name,
        "inputs": inputs,
        "outputs": program.specs(),
        "largest_difference": difference,
        "batch_sizes": list(BATCH_SIZES),
    }


def _write(file: Path, program: Program, inputs: Inputs, file_format: Format, *, overwrite: bool) -> float:
    """Write the file if its outputs match those of the program; return the largest difference."""
    content = exporting.serialize(program, inputs, file_format)
    difference = exporting.largest_difference(program, exporting.load(content, file_format), inputs)
    if not difference <= TOLERANCE:  # also refuses NaN
        raise ExportError(
            f"{file} was not written: outputs of the exported program differ from the policy's by {difference:.3g}, "
            f"expected at most {TOLERANCE:g}; try the other format, and report it"
        )
    write_atomically(file, lambda partial: partial.write_bytes(content), overwrite=overwrite)
    return difference
