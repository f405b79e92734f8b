"""Metrics: ``metrics.csv`` is the record, TensorBoard and Weights & Biases are views of it."""

import csv
import importlib.util
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from tesserl_analysis.record import HEADER, read_metrics
from tesserl_trainer.run.files import write_text


class MetricsLog:
    """Appends metrics to ``metrics.csv`` (long form, flushed line by line) and to the views that were asked for.

    Args:
        run_dir: directory of the run.
        tensorboard: write event files to ``tensorboard/`` too.
        wandb: a name under which the run appears in Weights & Biases, or ``None``.

    Raises:
        ModuleNotFoundError: Weights & Biases was asked for and is not installed.
    """

    def __init__(self, run_dir: Path, *, tensorboard: bool = True, wandb: str | None = None) -> None:
        if wandb is not None and importlib.util.find_spec("wandb") is None:
            raise ModuleNotFoundError('logging.wandb needs Weights & Biases; install "tesserl-trainer[wandb]"')
        self.path = run_dir / "metrics.csv"
        self._run_dir, self._with_board, self._wandb_name = run_dir, tensorboard, wandb
        self._file: TextIO | None = None
        self._board: Any = None
        self._wandb: Any = None

    def open(self, *, resume_step: int | None = None) -> None:
        """Begins to record.

        Args:
            resume_step: keep the record up to this step and cut what comes after; ``None`` starts a new one.
        """
        kept = [] if resume_step is None else [row for row in read_metrics(self.path) if row[0] <= resume_step]
        write_text(self.path, _lines([HEADER, *kept]))
        self._file = self.path.open("a", encoding="utf-8", newline="")
        if self._with_board:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and optional

            purge = None if resume_step is None else resume_step + 1
            self._board = SummaryWriter(str(self._run_dir / "tensorboard"), purge_step=purge)
        if self._wandb_name is not None:
            import wandb

            name = self._wandb_name
            self._wandb = wandb.init(name=name, id=name, dir=str(self._run_dir), resume="allow")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records metrics at a step.

        Args:
            step: environment steps so far.
            metrics: values by name.
        """
        now = round(time.time(), 3)
        if self._file is None:
            raise RuntimeError("the metrics log is not open; call open() first")
        self._file.write(_lines([(step, name, float(value), now) for name, value in metrics.items()]))
        self._file.flush()
        if self._board is not None:
            for name, value in metrics.items():
                self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(dict(metrics), step=step)

    def close(self) -> None:
        """Flushes and closes all views."""
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def _lines(rows: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


class Averages:
    """Running means of metrics between two log lines; the sums stay on the device until they are read."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Adds one scalar tensor for every name (the same names every time)."""
        self._count += 1
        for name, value in metrics.items():
            if name not in self._sums:
                self._sums[name] = value.detach().to(torch.float64, copy=True)
                continue
            if self._sums[name].device != value.device:  # it comes from a checkpoint
                self._sums[name] = self._sums[name].to(value.device)
            self._sums[name] += value

    def finite(self) -> bool:
        """Whether no sum is NaN or infinite."""
        return not self._sums or bool(torch.cat([value.flatten() for value in self._sums.values()]).isfinite().all())

    def pop(self) -> dict[str, float]:
        """The means since the last call; nothing where nothing was added."""
        means = {name: float(value) / self._count for name, value in self._sums.items()}
        self._sums, self._count = {}, 0
        return means

    def state_dict(self) -> dict[str, Any]:
        """Sums and count."""
        return {"sums": {name: value.clone() for name, value in self._sums.items()}, "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from ``state_dict``."""
        self._sums = {name: value.clone() for name, value in state["sums"].items()}
        self._count = state["count"]
