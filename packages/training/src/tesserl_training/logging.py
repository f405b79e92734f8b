"""Write metrics to ``metrics.csv``, the record of a run, and send them to other loggers."""

import csv
import hashlib
import io
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tesserl_analysis import run_files
from tesserl_analysis.record import HEADER
from tesserl_storage.appending import AppendedFile
from tesserl_storage.errors import StorageError
from tesserl_storage.fields import Fields
from tesserl_storage.whole_files import write_atomically
from tesserl_training.loggers import Logger, Opener


class MetricsLog:
    """Appends metrics to ``metrics.csv`` (one row per value, flushed line by line) and sends them to loggers.

    A logger that fails is closed and gets no further metrics; training continues.

    Args:
        run_dir: directory of the run.
        loggers: functions that open loggers, by key of the block ``logging``.
        on_note: called with a message about a failed logger.
    """

    def __init__(
        self,
        run_dir: Path,
        loggers: Mapping[str, Opener] | None = None,
        on_note: Callable[[str], object] = warnings.warn,
    ) -> None:
        self.path = run_dir / run_files.METRICS
        self._openers, self._on_note = loggers or {}, on_note
        self._file: AppendedFile | None = None
        self._size, self._digest = 0, hashlib.sha256()
        self._loggers: dict[str, Logger] = {}

    def open(self, *, resume_step: int | None = None, record: Mapping[str, Any] | None = None) -> None:
        """Start recording.

        Args:
            resume_step: step from which the run continues; None starts a new record.
            record: description, from ``record``, of the part of the file to keep; the rest is cut.

        Raises:
            StorageError: the part to keep was changed.
        """
        kept = None if record is None else read_record(self.path, record)
        content = _lines([HEADER]).encode() if kept is None else kept
        write_atomically(self.path, lambda partial: partial.write_bytes(content))
        self._size, self._digest = len(content), hashlib.sha256(content)
        self._file = AppendedFile(self.path)
        for key, opener in self._openers.items():
            with self._surviving(key):
                self._loggers[key] = opener(resume_step)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record metrics at a step.

        Args:
            step: environment steps so far.
            metrics: values by name.

        Raises:
            OSError: ``metrics.csv`` cannot be written, for example on a full disk; it holds none of these metrics.
        """
        now = round(time.time(), 3)
        if self._file is None:
            raise RuntimeError("the metrics log is not open; call open() first")
        lines = _lines([(step, name, float(value), now) for name, value in metrics.items()]).encode()
        self._file.write(lines)
        self._size += len(lines)
        self._digest.update(lines)
        for key, logger in list(self._loggers.items()):
            with self._surviving(key):
                logger.log(step, metrics)

    def record(self) -> dict[str, Any] | None:
        """Sync the file to disk and return its size and SHA-256; None before ``open``."""
        if self._file is None:
            return None
        self._file.sync()
        return {"bytes": self._size, "sha256": self._digest.hexdigest()}

    def close(self) -> None:
        """Close the record and all loggers."""
        if self._file is not None:
            self._file.close()
        for key, logger in list(self._loggers.items()):
            with self._surviving(key):
                logger.close()
        self._loggers = {}

    @contextmanager
    def _surviving(self, key: str) -> Iterator[None]:
        """Turn the error of a logger into a note, and stop using that logger."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - no error of another project may end a training
            if (logger := self._loggers.pop(key, None)) is not None:
                with suppress(Exception):  # one note is enough
                    logger.close()
            cause = " ".join(str(error).split()) or type(error).__name__
            self._on_note(
                f"warning: logging.{key} failed and gets nothing more of this run, while metrics.csv has every value: "
                f"{cause}"
            )


class NoLog(MetricsLog):
    """Records nothing; for ranks other than 0."""

    def open(self, *, resume_step: int | None = None, record: Mapping[str, Any] | None = None) -> None:
        """Do nothing."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Do nothing."""


def read_record(path: Path, record: Mapping[str, Any]) -> bytes | None:
    """Return the part of ``metrics.csv`` that a checkpoint describes; None if the file is missing.

    Args:
        path: path of the file.
        record: result of ``MetricsLog.record``.

    Raises:
        StorageError: the described part was changed.
    """
    if not path.exists():
        return None
    with path.open("rb") as file:
        content = file.read(record["bytes"])
    if hashlib.sha256(content).hexdigest() != record["sha256"]:
        raise StorageError(
            f"{path}: not what the run wrote up to the checkpoint (altered or damaged); put it back, or remove it: a "
            "resume then begins a new record"
        )
    return content


def _lines(rows: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


class Averages:
    """Means of metrics since the last report; sums are float64 and stay on the device.

    Consecutive calls usually have the same names. Their sums are stored in one vector, so that a call costs two
    operations instead of one per name.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}  # sums outside of the vector
        self._counts: dict[str, int] = {}
        self._names: tuple[str, ...] = ()  # names in the vector
        self._vector = torch.zeros(0, dtype=torch.float64)
        self._added = 0  # calls since the vector was started

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Add one scalar tensor per name; calls may have different names."""
        if not metrics:
            return
        values = list(metrics.values())
        # convert first: stacking mixed types would round some, and torchrl's metrics may have shape [1]
        if any(value.dtype != torch.float32 or value.dim() for value in values):
            values = [value.to(torch.float64).reshape(()) for value in values]
        added, names = torch.stack(values).detach(), tuple(metrics)
        if names != self._names or added.device != self._vector.device:
            self._begin(names, added.device)
        self._vector += added
        self._added += 1

    def _begin(self, names: tuple[str, ...], device: torch.device) -> None:
        """Start a vector of these names from their sums so far."""
        self._end()
        zero = torch.zeros((), dtype=torch.float64, device=device)
        self._vector = torch.stack([self._sums.pop(name, zero).to(device) for name in names])
        self._names = names

    def _end(self) -> None:
        """Store the vector's sums by name."""
        for name, total in zip(self._names, self._vector.unbind(), strict=True):
            self._sums[name] = total
            self._counts[name] = self._counts.get(name, 0) + self._added
        self._names, self._vector, self._added = (), torch.zeros(0, dtype=torch.float64), 0

    def finite(self) -> bool:
        """Return whether all sums are finite."""
        return bool(self.are_finite())

    def are_finite(self) -> Tensor:
        """Return whether all sums are finite, as a bool scalar on the device of the newest ones."""
        sums = [self._vector, *(value.reshape(1).to(self._vector.device) for value in self._sums.values())]
        return torch.cat(sums).isfinite().all()

    def pop(self) -> dict[str, float]:
        """Return the means since the last call; empty if nothing was added."""
        self._vector = self._vector.cpu()  # one transfer for all sums
        self._end()
        means = {name: float(value) / self._counts[name] for name, value in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        """Return the sums and counts."""
        self._end()
        return {"sums": {name: value.clone() for name, value in self._sums.items()}, "count": dict(self._counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._end()
        fields = Fields(state, "averages")
        sums = fields.fields("sums")
        self._sums = {name: sums.scalar(name).to(torch.float64, copy=True) for name in sums.value}
        if isinstance(fields.take("count"), int):  # version 0.1 wrote one count for all names
            self._counts = dict.fromkeys(self._sums, fields.integer("count", least=1 if self._sums else 0))
        else:
            counts = fields.fields("count")
            self._counts = {name: counts.integer(name, least=1) for name in self._sums}
