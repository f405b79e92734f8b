"""Join the processes that ``torchrun`` started, with separate time limits for joining and for operations.

The process group uses gloo for the CPU and, for runs on GPUs, also NCCL. Keys in torchrun's store contain the number of
the restart, so that a restarted group never reads values of the previous group.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined] # torch does not list them

from tesserl_ranks.failures import GRACE, POLL, RankError, first_line
from tesserl_ranks.group import ALONE, Ranks
from tesserl_ranks.store import PatientStore

JOIN_TIMEOUT, TIMEOUT = "TESSERL_RANKS_JOIN_TIMEOUT", "TESSERL_RANKS_TIMEOUT"
"""Environment variables: seconds to wait for all ranks to join (300), and for the other ranks in an operation (60)."""


@dataclass(frozen=True)
class Launch:
    """Values of the environment variables that ``torchrun`` sets for a process.

    Args:
        rank: number of this process among all.
        number: number of processes.
        local_rank: number of this process on its machine, and of its GPU.
        restarts: number of restarts of the group.
        identity: identifies the ``torchrun`` command; the same for all its restarts.
    """

    rank: int
    number: int
    local_rank: int
    restarts: int
    identity: str


def launched() -> Launch | None:
    """Return the values that ``torchrun`` set for this process; None if it did not start it."""
    values = os.environ
    if any(name not in values for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")):
        return None
    run_id = values.get("TORCHELASTIC_RUN_ID", "none")
    return Launch(
        rank=int(values["RANK"]),
        number=int(values["WORLD_SIZE"]),
        local_rank=int(values.get("LOCAL_RANK", "0")),
        restarts=int(values.get("TORCHELASTIC_RESTART_COUNT", "0")),
        identity=_starter() if run_id == "none" else run_id,
    )


def _starter() -> str:
    """Return an identifier of the parent process: its machine, its process id and its start time."""
    parent = os.getppid()
    try:
        began = Path(f"/proc/{parent}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):  # not on Linux
        began = ""
    return f"{socket.gethostname()}:{parent}:{began}"


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the other ranks for a ``with`` block.

    Args:
        device: device of the run; a GPU needs NCCL.

    Yields:
        The ranks; without ``torchrun``, or with one process, `ALONE`.

    Raises:
        RankError: a rank did not join in time.
    """
    launch = launched()
    if launch is None or launch.number == 1:
        yield ALONE
        return
    patience, timeout = _seconds(JOIN_TIMEOUT, 300.0), _seconds(TIMEOUT, 60.0)
    store = _meet(launch, patience)
    patient = PatientStore(store, timeout)
    names = [f"rank {rank} ({patient.get(f'joined/{rank}').decode()})" for rank in range(launch.number)]
    backend = "gloo"
    if torch.device(device).type == "cuda":
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(launch.local_rank)
    try:
        dist.init_process_group(
            backend,
            store=PrefixStore("group", store),
            rank=launch.rank,
            world_size=launch.number,
            timeout=timedelta(seconds=timeout),
        )
    except RuntimeError as error:
        raise RankError(
            f"ranks: {names[launch.rank]} cannot connect to the others ({first_line(error)}); check the network "
            "between the machines, and set GLOO_SOCKET_IFNAME to the interface that joins them"
        ) from error
    ranks = Ranks(launch.rank, launch.number, store=patient, names=names, timeout=timeout, patience=patience)
    try:
        yield ranks
        ranks.leave(timeout)
    except BaseException as error:
        ranks.leave(2 * GRACE, error)
        raise
    finally:
        dist.destroy_process_group()


def _meet(launch: Launch, patience: float) -> PrefixStore:
    """Return the store of the ranks after all of them have connected to it."""
    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        found, _, _ = next(rendezvous("env://", launch.rank, launch.number, timeout=timedelta(seconds=patience)))
        store = PrefixStore(f"tesserl/{launch.restarts}", found)
        store.set(f"joined/{launch.rank}", socket.gethostname())
        missing, deadline = list(range(launch.number)), time.monotonic() + patience
        while missing := [rank for rank in missing if not store.check([f"joined/{rank}"])]:
            if time.monotonic() > deadline:
                raise RankError(
                    f"ranks: {', '.join(map(str, missing))} of {launch.number} did not join at {address} within "
                    f"{patience:g} s; start every machine's torchrun, or raise {JOIN_TIMEOUT}"
                )
            time.sleep(POLL)
    except RankError:
        raise
    except RuntimeError as error:
        raise RankError(
            f"ranks: not all of {launch.number} ranks met at {address} within {patience:g} s ({first_line(error)}); "
            f"start every machine's torchrun, check that the port can be reached, or raise {JOIN_TIMEOUT}"
        ) from error
    return store


def _seconds(name: str, default: float) -> float:
    """Return the value of an environment variable in seconds."""
    text = os.environ.get(name, str(default))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise ValueError(f"{name}: expected a positive number of seconds, got {text!r}; leave it out for {default:g}")
    return seconds
