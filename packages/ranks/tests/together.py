"""Processes that are ranks together, as ``torchrun`` starts them."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

SCENARIOS = Path(__file__).with_name("ranked.py")

PATIENCE = 600.0
"""Seconds, on a machine that is busy."""


def free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def environment_of(rank: int, number: int, **more: str) -> dict[str, str]:
    """Return what ``torchrun`` tells a process."""
    told = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1"}
    return {**os.environ, "OMP_NUM_THREADS": "1", "RL_WARNINGS": "False", "PYTHONWARNINGS": "ignore", **told, **more}


def together(number: int, plan: list[tuple[str, dict]], directory: Path, **more: str) -> list[list]:
    """Return what every rank returned in each scenario of `ranked`: a list of ranks for each scenario."""
    directory.mkdir(parents=True, exist_ok=True)
    ports = free_ports(len(plan))
    numbered = [[port, name, arguments] for port, (name, arguments) in zip(ports, plan, strict=True)]
    (directory / "plan.json").write_text(json.dumps(numbered))
    command = [sys.executable, str(SCENARIOS), str(directory)]
    processes = [
        subprocess.Popen(
            command, cwd=directory, env=environment_of(rank, number, **more), stderr=subprocess.PIPE, text=True
        )
        for rank in range(number)
    ]
    try:
        said = [process.communicate(timeout=PATIENCE)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * number, "\n".join(said)
    lines = [(directory / f"{rank}.jsonl").read_text().splitlines() for rank in range(number)]
    (directory / "said.txt").write_text("\n".join(said))
    return [[json.loads(line) for line in of_ranks] for of_ranks in zip(*lines, strict=True)]


def until(holds, process):
    """Wait until something holds, unless the process ends before."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(process.communicate()[1])
        time.sleep(0.05)
