"""The connection between two ranks fails in several ways: an error after the timeout, never a hang."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .together import PATIENCE, environment_of, free_ports, until

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


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def namespaces():
    """Two network namespaces that are joined by one link, as two machines are."""
    names = [f"tesserl{os.getpid()}a", f"tesserl{os.getpid()}b"]
    made = []
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
        ip("link", "add", "near", "netns", names[0], "type", "veth", "peer", "name", "far", "netns", names[1])
        for name, device, address in zip(names, ("near", "far"), ("10.77.0.1/24", "10.77.0.2/24"), strict=True):
            ip("-n", name, "addr", "add", address, "dev", device)
            for each in (device, "lo"):
                ip("-n", name, "link", "set", each, "up")
        yield names
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        if len(made) < 2:
            pytest.skip(f"needs the right to make network namespaces: {getattr(error, 'stderr', error)}")
        raise
    finally:
        for name in made:
            ip("netns", "delete", name)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("operation", "first", "second"),
    [
        ("reduce", "no answer from rank 1", "the store of the ranks, on the machine of rank 0, does not answer"),
        ("evaluate", "no answer from rank 1", "the store of the ranks, on the machine of rank 0, does not answer"),
    ],
)
def test_a_cut_link_between_machines_is_an_error_on_both(namespaces, tmp_path, operation, first, second):
    processes = []
    for rank, (name, device) in enumerate(zip(namespaces, ("near", "far"), strict=True)):
        more = {"MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "29500", "GLOO_SOCKET_IFNAME": device}
        processes.append(
            subprocess.Popen(
                [
                    "ip", "netns", "exec", name,
                    sys.executable, str(SCRIPT.with_name("cut_rank.py")), str(tmp_path), operation,
                ],
                env=environment_of(rank, 2) | more | {"TESSERL_RANKS_TIMEOUT": "5"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )  # fmt: skip
    try:
        until((tmp_path / "ready").exists, processes[0])
        ip("-n", namespaces[0], "link", "set", "near", "down")
        (tmp_path / "cut").touch()
        said = [process.communicate(timeout=PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    reports = [json.loads(out.splitlines()[-1]) for out, _ in said]
    assert first in reports[0]
    assert second in reports[1]
