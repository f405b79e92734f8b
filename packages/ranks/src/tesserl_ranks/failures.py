"""Report lost ranks in the errors of operations."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tesserl_ranks.store import PatientStore

GRACE = 3.0
"""Seconds that ranks get to respond after a failed operation."""


POLL = 0.02
"""Seconds between two checks of the store."""


class RankError(RuntimeError):
    """A rank was lost, or the ranks do not agree."""


class Members:
    """The ranks of a run, with their names for errors.

    Args:
        rank: number of this process, from 0.
        number: number of processes.
        store: keys and values that all ranks can reach; None with one rank.
        names: names of the ranks in messages; empty for ``rank 0`` and so on.
    """

    def __init__(self, rank: int, number: int, store: PatientStore | None, names: list[str]) -> None:
        self.rank, self.number, self._store, self._names = rank, number, store, names

    @property
    def store(self) -> PatientStore:
        """Return the store."""
        if self._store is None:
            raise RuntimeError("one rank has no store; ask for it only if number is above 1")
        return self._store

    def name(self, rank: int) -> str:
        """Return the name of a rank in messages."""
        return self._names[rank] if self._names else f"rank {rank}"

    @contextmanager
    def operation(self, name: str) -> Iterator[None]:
        """Convert an error of torch.distributed to one that names the operation and the lost ranks."""
        began = time.monotonic()
        try:
            yield
        except RankError:
            raise
        except RuntimeError as error:  # from gloo, NCCL or the store
            raise self._lost(name, error, time.monotonic() - began) from error

    def _lost(self, name: str, error: Exception, seconds: float) -> RankError:
        """Return the error of a failed operation."""
        said = f"rank {self.rank}: {name} failed after {seconds:.1f} s"
        try:
            silent, failures = self._ask_others()
        except RuntimeError:
            return RankError(f"{said}: the store of the ranks, on the machine of rank 0, does not answer any more")
        if failures:
            return RankError(f"{said}: {'; '.join(failures)}")
        if silent:
            return RankError(f"{said}: no answer from {', '.join(map(self.name, silent))} (killed, stopped or cut off)")
        return RankError(f"{said}: all ranks answer, but a connection between them is lost ({first_line(error)})")

    def _ask_others(self) -> tuple[list[int], list[str]]:
        """Return the ranks that do not answer, and the reasons of ranks that have ended."""
        store = self.store.within(GRACE)
        store.set(f"stopped/{self.rank}", "")
        others = [rank for rank in range(self.number) if rank != self.rank]
        silent, failures, deadline = others, list[str](), time.monotonic() + GRACE
        while silent and time.monotonic() < deadline:
            ended = [rank for rank in silent if store.check([f"failed/{rank}"])]
            failures += [f"{self.name(rank)} failed: {store.get(f'failed/{rank}').decode()}" for rank in ended]
            silent = [rank for rank in silent if rank not in ended and not store.check([f"stopped/{rank}"])]
            time.sleep(POLL)
        return silent, failures


def first_line(error: BaseException) -> str:
    """Return the first line of an error, shortened, or its type."""
    lines = str(error).strip().splitlines()
    return f"{lines[0]:.300}" if lines else type(error).__name__
