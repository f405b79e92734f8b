"""The connection between two ranks fails in several ways: an error after the timeout, never a hang."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .test_ranks import PATIENCE, environment_of, free_ports

SCRIPT = Path(__file__).with_name("relayed_rank.py")


def through_a_relay(fault: str) -> list[dict]:
    """Return what both ranks report."""
    (port,) = free_ports(1)
    more = {"MASTER_PORT": str(port), "TESSERL_RANKS_TIMEOUT": "5"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), fault],
            env=environment_of(rank, 2, **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    return [json.loads(out.splitlines()[-1]) for out, _ in said]


@pytest.mark.soak
def test_a_slow_connection_is_no_failure():
    for report in through_a_relay("delay"):
        assert report["error"] is None
        assert report["relays"] == 2
        assert report["gradient"] == 0.5


@pytest.mark.parametrize(
    "fault",
    ["stall", pytest.param("close", marks=pytest.mark.soak), pytest.param("one way", marks=pytest.mark.soak)],
)
def test_a_broken_connection_is_an_error_that_names_the_operation(fault):
    reports = through_a_relay(fault)
    assert sum(report["relays"] for report in reports) == 2
    for rank, report in enumerate(reports):
        assert f"rank {rank}: the all_reduce of gradients failed after" in report["error"]
