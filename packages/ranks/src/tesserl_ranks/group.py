"""Collective operations of the ranks of a run; every wait has a time limit."""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tesserl_ranks.failures import GRACE, POLL, Members, RankError, first_line
from tesserl_ranks.statistics import Statistics, moments
from tesserl_ranks.store import PatientStore

T = TypeVar("T")


class Ranks:
    """One process's interface to all processes (ranks) that train one run together.

    All ranks must call the same methods in the same order. A single rank sends nothing and imports nothing.

    Args:
        rank: number of this process, from 0.
        number: number of processes.
        store: keys and values that all ranks can reach.
        names: names of the ranks in messages.
        timeout: seconds that an operation waits for other ranks.
        patience: seconds that starting ranks wait for each other.
    """

    def __init__(
        self,
        rank: int = 0,
        number: int = 1,
        *,
        store: PatientStore | None = None,
        names: Sequence[str] = (),
        timeout: float = 60.0,
        patience: float = 300.0,
    ) -> None:
        self.rank, self.number, self.timeout, self.patience = rank, number, timeout, patience
        self._members = Members(rank, number, store, list(names))
        self._turns = 0
        self._generator = torch.Generator().manual_seed(0).get_state() if number > 1 else torch.empty(0)

    @property
    def store(self) -> PatientStore:
        """Keys and values that all ranks can reach.

        Raises:
            RuntimeError: there is one rank only.
        """
        return self._members.store

    def total(self, value: float) -> float:
        """Return the sum of a number over all ranks."""
        return self._combined(value, dist.ReduceOp.SUM, "a sum")

    def largest(self, value: float) -> float:
        """Return the maximum of a number over all ranks."""
        return self._combined(value, dist.ReduceOp.MAX, "an agreement")

    def some(self, flag: bool) -> bool:
        """Return whether a flag is true on at least one rank."""
        return bool(self.largest(float(flag)))

    def every(self, flag: bool) -> bool:
        """Return whether a flag is true on all ranks."""
        return not self.some(not flag)

    def _combined(self, value: float, operation: dist.ReduceOp.RedOpType, name: str) -> float:
        if self.number == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64)
        with self._members.operation(name):
            dist.all_reduce(tensor, operation)
        return float(tensor)

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, in the order of the ranks."""
        if self.number == 1:
            return [value]
        values: list[T | None] = [None] * self.number
        with self._members.operation("an exchange of data"):
            dist.all_gather_object(values, value)
        return values  # type: ignore[return-value] # filled by now

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by those of rank 0."""
        for tensor in tensors if self.number > 1 else ():
            copy = tensor.detach().contiguous()
            with self._members.operation("copying the weights of rank 0"):
                dist.broadcast(copy, 0)
            tensor.detach().copy_(copy)

    def reduce(
        self, parameters: Sequence[nn.Parameter], metrics: Mapping[str, Tensor], weight: float
    ) -> dict[str, Tensor]:
        """Replace gradients by their weighted means over all ranks, in one all_reduce.

        Args:
            parameters: parameters whose ``grad`` is replaced; all ranks must have the same parameters without a
                gradient.
            metrics: scalars of the same names on all ranks.
            weight: number of samples in this rank's mean loss; with 0 its gradients do not count.

        Returns:
            The weighted means of the metrics.
        """
        if self.number == 1:
            return {name: value.detach() for name, value in metrics.items()}
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        dtype, device = gradients[0].dtype, gradients[0].device
        scalars = [value.detach().reshape(1).to(device, dtype) for value in metrics.values()]
        flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), *scalars, gradients[0].new_ones(1)])
        if weight:
            flat *= weight
        else:  # also if values are not finite
            flat.zero_()
        with self._members.operation("the all_reduce of gradients"):
            dist.all_reduce(flat)
        flat /= flat[-1].clone()
        place = 0
        for gradient in gradients:
            gradient.copy_(flat[place : place + gradient.numel()].view_as(gradient))
            place += gradient.numel()
        return dict(zip(metrics, flat[place:-1].clone().unbind(), strict=True))

    def share(self, index: Tensor) -> tuple[Tensor, int]:
        """Return this rank's part of the rows of a batch that all ranks have, and its weight in `reduce`.

        Args:
            index: indices of the rows, ``[M]``, with ``M`` at least 1.

        Returns:
            The part and its weight. If there are fewer rows than ranks, some ranks get one row with weight 0.
        """
        part = torch.tensor_split(index, self.number)[self.rank]
        return (part, len(part)) if len(part) else (index[:1], 0)

    def update_statistics(self, normalizer: Statistics, features: Tensor) -> None:
        """Update running statistics by the features of all ranks, merged in the order of the ranks.

        Args:
            normalizer: running statistics, the same on all ranks.
            features: features of this rank, ``[*B, F]``.
        """
        if self.number == 1:
            normalizer.update(features)
            return
        for count, mean, variance in self.gather(moments(features)):
            device = normalizer.mean.device
            normalizer.merge(count, mean.to(device), variance.to(device))

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """Use a random generator that has the same state on all ranks, within a ``with`` block."""
        if self.number == 1:
            yield
            return
        own = torch.get_rng_state()
        torch.set_rng_state(self._generator)
        try:
            yield
        finally:
            self._generator = torch.get_rng_state()
            torch.set_rng_state(own)

    def seed(self, seed: int) -> None:
        """Seed the generator of ``agreed``."""
        if self.number > 1:
            self._generator = torch.Generator().manual_seed(seed).get_state()

    @property
    def generator(self) -> Tensor:
        """State of the generator of ``agreed``."""
        return self._generator

    @generator.setter
    def generator(self, state: Tensor) -> None:
        self._generator = state

    def by_first(self, work: Callable[[], T], doing: str) -> T:
        """Run ``work`` on rank 0, which may take any time, and return its result on all ranks.

        Args:
            work: function that returns JSON data.
            doing: name of the work in messages, such as ``"evaluating"``.

        Raises:
            RankError: rank 0 failed, or sent no heartbeat for ``timeout`` seconds.
        """
        if self.number == 1:
            return work()
        self._turns += 1
        key = f"turn/{self._turns}"
        if self.rank == 0:
            with self._beating(key):
                result = work()
            with self._members.operation(doing):
                self.store.set(key, json.dumps(result))
            return result
        with self._members.operation(doing):
            self._await_first(key, doing)
            received: T = json.loads(self.store.get(key))
            return received

    @contextmanager
    def _beating(self, key: str) -> Iterator[None]:
        """Send heartbeats while this rank works."""
        over = threading.Event()

        def beat() -> None:
            with suppress(RuntimeError):  # without a store, the other ranks report the error
                while not over.wait(min(self.timeout / 10, 1.0)):
                    self.store.add(f"{key}/beats", 1)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _await_first(self, key: str, doing: str) -> None:
        """Wait until rank 0 has finished its work."""
        seen, since = -1, time.monotonic()
        while not self.store.check([key]):
            if self.store.check(["failed/0"]):
                raise RankError(f"{self._members.name(0)} failed while {doing}: {self.store.get('failed/0').decode()}")
            beats = self.store.add(f"{key}/beats", 0)
            now = time.monotonic()
            if beats != seen:
                seen, since = beats, now
            elif now - since > self.timeout:
                raise RankError(f"{self._members.name(0)} gave no sign of life for {self.timeout:g} s while {doing}")
            time.sleep(POLL)

    def meet(self, doing: str) -> None:
        """Wait until all ranks have reached this call, for at most ``patience`` seconds.

        Args:
            doing: name of the preceding work in messages, such as ``"starting environments"``.

        Raises:
            RankError: a rank failed or took too long.
        """
        if self.number == 1:
            return
        self._turns += 1
        key, missing, deadline = f"meeting/{self._turns}", list(range(self.number)), time.monotonic() + self.patience
        with self._members.operation(doing):
            self.store.set(f"{key}/{self.rank}", "")
            while missing := [rank for rank in missing if not self.store.check([f"{key}/{rank}"])]:
                for rank in missing:
                    if self.store.check([f"failed/{rank}"]):
                        reason = self.store.get(f"failed/{rank}").decode()
                        raise RankError(f"{self._members.name(rank)} failed while {doing}: {reason}")
                if time.monotonic() > deadline:
                    late = ", ".join(map(self._members.name, missing))
                    raise RankError(f"{late} needed more than {self.patience:g} s for {doing}")
                time.sleep(POLL)

    def leave(self, patience: float, error: BaseException | None = None) -> None:
        """Tell the other ranks that this rank ends. Rank 0 waits for the others, because it may host the store.

        Args:
            patience: seconds that rank 0 waits.
            error: error that ends this rank; None if it ends normally.
        """
        store = self.store.within(GRACE)
        with suppress(RuntimeError):  # the store may be gone
            if error is not None:
                store.set(f"failed/{self.rank}", first_line(error))
            store.set(f"left/{self.rank}", "")
            others = [f"left/{rank}" for rank in range(1, self.number)]
            deadline = time.monotonic() + patience
            while self.rank == 0 and not store.check(others) and time.monotonic() < deadline:
                time.sleep(POLL)


ALONE = Ranks()
"""The only rank of an ordinary run."""
