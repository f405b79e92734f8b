"""Write TensorBoard event files synchronously; torch's writer reports a full disk only as a traceback in a thread."""

import itertools
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from tesserl_storage.appending import AppendedFile

_numbers = itertools.count()


class EventFile:
    """A new event file in a directory.

    Args:
        directory: created if it does not exist.
        purge_step: TensorBoard discards the values of earlier files in the directory from this step on; None keeps
            them.

    Raises:
        OSError: the file cannot be written, for example on a full disk.
    """

    def __init__(self, directory: Path, *, purge_step: int | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self._records = RecordWriter(AppendedFile(directory / name))
        self._write(Event(file_version="brain.Event:2"))
        if purge_step is not None:
            self._write(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append values by name; the file receives all of them before this returns, or none."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._write(Event(step=step, summary=Summary(value=values)))

    def close(self) -> None:
        """Close the file."""
        self._records.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
