"""Environments in processes of their own, none of which is ever waited for for ever."""

import queue
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv
from gymnasium.vector.async_vector_env import AsyncState, _async_worker
from numpy.typing import NDArray


class WorkerError(RuntimeError):
    """An environment worker raised, died or did not answer; the message names it. The run can be resumed."""


class WorkerEnvironments(AsyncVectorEnv):
    """One process for each environment; it starts anew and imports what its maker needs, without torch half a second.

    Whatever is asked of the workers (spaces, reset, step, a call, an attribute, the end) fails with ``WorkerError``
    where one of them raises, dies, or takes too long.

    Args:
        makers: one function that makes an environment for each process.
        timeout: seconds that a worker may take for one answer.
        autoreset_mode: what a worker does with an episode that ended.

    Raises:
        WorkerError: a worker could not make its environment.
    """

    def __init__(
        self,
        makers: Sequence[Callable[[], gym.Env[Any, Any]]],
        *,
        timeout: float = 60.0,
        autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
    ) -> None:
        self.timeout = timeout
        try:
            super().__init__(makers, copy=False, worker=_work, autoreset_mode=autoreset_mode)
        except WorkerError:
            self.close(terminate=True)
            raise

    @contextmanager
    def within(self, timeout: float) -> Iterator[None]:
        """Meanwhile a worker may take ``timeout`` seconds for one answer."""
        before, self.timeout = self.timeout, timeout
        try:
            yield
        finally:
            self.timeout = before

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:  # noqa: ARG002
        """Lets the workers close their environments, or ends them at once; none is left afterwards.

        Args:
            timeout: not used, ``timeout`` of the constructor is.
            terminate: end them at once; so they are also in the middle of a step, that is, after an error.

        Raises:
            WorkerError: a worker could not close its environment, or not in time.
        """
        patience = 0.0 if terminate or self._state is not AsyncState.DEFAULT else self.timeout
        if not patience:
            _end(self.processes, patience)  # before the pipes: a worker that finds its pipe closed shows a traceback
        try:
            if patience:
                for pipe in self.parent_pipes:
                    pipe.send(("close", None))
                for pipe in self.parent_pipes:
                    pipe.recv()
        finally:
            for pipe in self.parent_pipes:
                pipe.close()
            late = _end(self.processes, patience)
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
        """The first thing that the base class asks of its processes once they run."""
        workers = enumerate(zip(self.parent_pipes, self.processes, strict=True))
        lines: list[Any] = [_Line(self, index, pipe, process) for index, (pipe, process) in workers]
        self.parent_pipes = lines
        super()._check_spaces()  # type: ignore[no-untyped-call]

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        """Instead of raising the worker's own exception: names the worker and shows its traceback."""
        failed = [index for index, success in enumerate(successes) if not success]
        if failed:
            try:
                index, _, _, trace = self.error_queue.get(timeout=self.timeout)
            except queue.Empty as error:
                raise WorkerError(
                    f"environment worker {_names(failed)} raised an error, but did not send it"
                ) from error
            raise WorkerError(f"environment worker {index} raised an error:\n{trace}")


class _Line:
    """This process's end of a worker's pipe."""

    def __init__(
        self, environments: WorkerEnvironments, index: int, connection: Connection, process: BaseProcess
    ) -> None:
        self._environments, self._index = environments, index
        self._connection, self._process = connection, process
        self._deadline = 0.0

    def send(self, message: Any) -> None:
        self._deadline = time.monotonic() + self._environments.timeout
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
        raise WorkerError(
            f"environment worker {self._index} did not answer within {self._environments.timeout:g} s; raise "
            "environment.worker_timeout if its steps take that long"
        )

    def close(self) -> None:
        self._connection.close()

    def _death(self) -> WorkerError:
        self._process.join(self._environments.timeout)  # its files close before it can be waited for
        return WorkerError(f"environment worker {self._index} died (exit code {self._process.exitcode})")


class _Errors:
    """Sends tracebacks instead of exceptions, which need not survive pickling."""

    def __init__(self, error_queue: Any) -> None:
        self._queue = error_queue

    def put(self, error: tuple[int, Any, Any, str]) -> None:
        index, _, _, trace = error
        self._queue.put((index, RuntimeError, "", trace))


def _work(
    index: int, make: Callable[[], Any], pipe: Any, parent_pipe: Any, memory: Any, errors: Any, *rest: Any
) -> None:
    """What a worker process runs: Gymnasium's worker, which also tells that its environment cannot be made."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what it means
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        environment = make()
    except Exception:  # noqa: BLE001 - whatever it is, the parent raises it
        _Errors(errors).put((index, None, None, traceback.format_exc()))
        pipe.send((None, False))
        return
    texts: Any = _Errors(errors)
    _async_worker(index, lambda: environment, pipe, parent_pipe, memory, texts, *rest)


def _end(processes: Sequence[BaseProcess], patience: float) -> list[int]:
    """Waits for processes to end, then kills what is left; tells which had to be killed."""
    deadline = time.monotonic() + patience
    late = []
    for index, process in enumerate(processes):
        process.join(max(deadline - time.monotonic(), 0.0))
        if process.is_alive():
            late.append(index)
            process.kill()
    for process in processes:
        process.join()
    return late


def autoreset_mode(environments: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """What the vector environment does with an episode that ended.

    Raises:
        ValueError: the environment's metadata do not say.
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
    """``environments.step(actions)``, with continuous actions clipped to their bounds.

    The environment alone sees the clipped action; who stores an action stores what the policy drew, whose
    log-probability is known.

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
    """Closes a vector environment; after a failure without waiting for workers, which may hang."""
    if isinstance(environments, AsyncVectorEnv):
        environments.close(terminate=failed)
    else:
        environments.close()


def _names(workers: Sequence[int]) -> str:
    return ", ".join(map(str, workers))
