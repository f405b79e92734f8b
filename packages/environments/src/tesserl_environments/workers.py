"""Environments in worker processes; every wait has a timeout."""

import logging
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv
from gymnasium.vector.async_vector_env import AsyncState
from gymnasium.vector.utils import CloudpickleWrapper
from numpy.typing import NDArray

from tesserl_environments.errors import TaskError, WorkerError
from tesserl_environments.main_guard import refuse_to_run_again
from tesserl_environments.processes import (
    START_METHOD,
    death,
    describe,
    end_processes,
    ended_at_exit,
    late_start,
)
from tesserl_environments.signals import held_back
from tesserl_environments.worker_process import Description, work


class WorkerEnvironments(AsyncVectorEnv):
    """Run each environment in its own worker process.

    A worker starts as a new process and imports the modules of its maker, which takes 0.5 s without torch. Every
    request to the workers (spaces, reset, step, call, attribute, close) raises ``WorkerError`` if a worker raises, dies
    or takes too long. No environment is made in this process.

    Args:
        makers: functions that make an environment, one per process.
        timeout: seconds that a worker may take for one answer.
        start_timeout: seconds that a worker may take to start and to make its environment.
        description: description of one environment; None makes an environment in a separate process first.
        passed_on: errors of a maker that are raised here unchanged, while the first environment is described.
        autoreset_mode: Gymnasium's mode for episodes that end.

    Raises:
        WorkerError: a worker could not make its environment.
    """

    def __init__(
        self,
        makers: Sequence[Callable[[], gym.Env[Any, Any]]],
        *,
        timeout: float = 60.0,
        start_timeout: float = 300.0,
        description: Description | None = None,
        passed_on: tuple[type[Exception], ...] = (),
        autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
    ) -> None:
        refuse_to_run_again()
        stand_in: Any = description or describe(makers[0], timeout=start_timeout, passed_on=passed_on)
        self.timeout, self._start_timeout, self._is_starting = timeout, start_timeout, True
        self.processes, self.parent_pipes = [], []
        self._state = AsyncState.DEFAULT
        self._at_exit: Finalize | None = None
        try:
            with held_back():
                super().__init__(
                    [lambda: stand_in] * len(makers),
                    copy=False,
                    context=START_METHOD,
                    worker=partial(work, [CloudpickleWrapper(make) for make in makers]),
                    autoreset_mode=autoreset_mode,
                )
        except BaseException:
            self.close(terminate=True)
            raise
        self._is_starting = False

    @contextmanager
    def within(self, timeout: float) -> Iterator[None]:
        """Allow a worker ``timeout`` seconds for one answer within the ``with`` block."""
        before, self.timeout = self.timeout, timeout
        try:
            yield
        finally:
            self.timeout = before

    @property
    def patience(self) -> tuple[float, str]:
        """Seconds that a worker may currently take, and the error text for a worker that takes longer."""
        if self._is_starting:
            return self._start_timeout, late_start(self._start_timeout)
        return self.timeout, (
            f"did not answer within {self.timeout:g} s; raise worker_timeout if its steps take that long"
        )

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:  # noqa: ARG002
        """Let the workers close their environments, or end them at once; afterwards no process is left.

        Args:
            timeout: not used; the constructor's ``timeout`` applies.
            terminate: end them at once, as after an error, when a worker may still be in a step.

        Raises:
            WorkerError: a worker could not close its environment, or not in time.
        """
        patience = 0.0 if terminate or self._state is not AsyncState.DEFAULT else self.timeout
        if not patience:
            end_processes(self.processes, patience)  # before closing the pipes, on which workers wait
        try:
            if patience:
                for pipe in self.parent_pipes:
                    pipe.send(("close", None))
                for pipe in self.parent_pipes:
                    pipe.recv()
        finally:
            for pipe in self.parent_pipes:
                pipe.close()
            late = end_processes(self.processes, patience)
            if self._at_exit is not None:
                self._at_exit.cancel()
        if patience:
            self._check_ends(late)

    def _check_ends(self, late: list[int]) -> None:
        if late:
            raise WorkerError(
                f"environment worker {_names(late)} did not close its environment within {self.timeout:g} s"
            )
        codes = [process.exitcode for process in self.processes]
        failed = [index for index, code in enumerate(codes) if code != 0]
        if failed:
            raise WorkerError(f"environment worker {_names(failed)} died while it closed (exit codes {codes})")

    def _check_spaces(self) -> None:
        """Wrap the pipes; the base class calls this method first after it has started the processes."""
        self._at_exit = ended_at_exit(self.processes)
        workers = enumerate(zip(self.parent_pipes, self.processes, strict=True))
        lines: list[Any] = [_Line(self, index, pipe, process) for index, (pipe, process) in workers]
        self.parent_pipes = lines
        super()._check_spaces()  # type: ignore[no-untyped-call]

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        """Raise the error that the first failed worker has sent."""
        failed = [index for index, success in enumerate(successes) if not success]
        told: dict[int, str] = {}
        try:
            for _ in failed:
                index, _, _, text = self.error_queue.get(timeout=self.patience[0])
                told[index] = text
        except queue.Empty as error:
            if not told:
                names = _names(failed)
                raise WorkerError(f"environment worker {names} raised an error, but did not send it") from error
        if told:
            raise WorkerError(told[min(told)])


class _Line:
    """The parent's end of a worker's pipe."""

    def __init__(
        self, environments: WorkerEnvironments, index: int, connection: Connection, process: BaseProcess
    ) -> None:
        self._environments, self._index = environments, index
        self._connection, self._process = connection, process
        self._deadline = 0.0

    def send(self, message: Any) -> None:
        self._deadline = time.monotonic() + self._environments.patience[0]
        try:
            self._connection.send(message)
        except OSError as error:
            raise self._death() from error

    def recv(self) -> Any:
        try:
            if self._connection.poll(max(self._deadline - time.monotonic(), 0.0)):
                return self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._death() from error
        raise WorkerError(f"environment worker {self._index} {self._environments.patience[1]}")

    def close(self) -> None:
        self._connection.close()

    def _death(self) -> WorkerError:
        return death(f"environment worker {self._index}", self._process, self._environments.patience[0])


def autoreset_mode(environments: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """Return the autoreset mode of a vector environment.

    Raises:
        ValueError: the environment's metadata do not declare it.
    """
    mode = environments.metadata.get("autoreset_mode")
    try:
        return mode if isinstance(mode, AutoresetMode) else AutoresetMode(mode)
    except ValueError as error:
        raise ValueError(
            f"{type(environments).__name__}: expected metadata['autoreset_mode'] to be one of "
            f"{[member.value for member in AutoresetMode]}, got {mode!r}; set it on the vector environment"
        ) from error


def step(environments: VectorEnv[Any, Any, Any], actions: NDArray[Any]) -> tuple[Any, ...]:
    """Return ``environments.step(actions)``, with continuous actions clipped to their bounds.

    Only the environment gets the clipped action. Callers store the unclipped action, because its log-probability is
    known.

    Args:
        environments: any vector environment.
        actions: ``[N, ...]``.

    Raises:
        WorkerError: a worker raised, died or did not answer.
    """
    space = environments.single_action_space
    if isinstance(space, spaces.Box):
        actions = np.clip(actions, space.low, space.high)
    return environments.step(actions)


def close(environments: VectorEnv[Any, Any, Any], *, failed: bool) -> None:
    """Close a vector environment; after a failure do not wait for workers, because they may hang.

    Raises:
        TaskError: an environment raised an error.
        WorkerError: a worker could not close its environment, or not in time.
    """
    if isinstance(environments, AsyncVectorEnv):
        environments.close(terminate=failed)
    else:
        environments.close()


@contextmanager
def closed_afterwards(environments: VectorEnv[Any, Any, Any]) -> Iterator[VectorEnv[Any, Any, Any]]:
    """Close a vector environment at the end of a ``with`` block; warn if it cannot be closed.

    Yields:
        The environments.
    """
    failed = True
    try:
        yield environments
        failed = False
    finally:
        try:
            close(environments, failed=failed)
        except (TaskError, WorkerError) as error:
            logging.getLogger(__name__).warning("warning: %s", error)


def _names(workers: Sequence[int]) -> str:
    return ", ".join(map(str, workers))
