"""The line protocol of the workers, and a clock that can be stopped."""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def cpu_of_processes() -> dict[str, float]:
    """Return the seconds of processor time of this process and of each process that it has started."""
    children = {
        f"worker {index}": pid
        for index, pid in enumerate(sorted(child.pid or 0 for child in multiprocessing.active_children()))
    }
    return {"learner": time.process_time(), **{name: _cpu_of(pid) for name, pid in children.items()}}


def _cpu_of(pid: int | None) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Clock:
    """Wall time and processor time in seconds since construction, without the time inside ``stopped``."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), sum(cpu_of_processes().values())

    def read(self) -> dict[str, float]:
        return {"wall": time.perf_counter() - self._wall, "cpu": sum(cpu_of_processes().values()) - self._cpu}

    @contextmanager
    def stopped(self) -> Iterator[None]:
        wall, cpu = time.perf_counter(), sum(cpu_of_processes().values())
        yield
        self._wall += time.perf_counter() - wall
        self._cpu += sum(cpu_of_processes().values()) - cpu


def serve(answer: Callable[[Any], dict[str, Any]]) -> None:
    """Write a line when ready, then answer each request with a line of JSON."""
    print(json.dumps({"ready": 1}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
