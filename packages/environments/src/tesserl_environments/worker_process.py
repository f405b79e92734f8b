"""Code that runs in the process of an environment worker."""

import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from gymnasium.vector.async_vector_env import _async_worker
from gymnasium.vector.utils import CloudpickleWrapper

from tesserl_environments.errors import TaskError
from tesserl_environments.signals import leave_to_parent

GRACE = 5.0
"""Seconds that a worker has to close its environment after its parent has died or has asked it to end."""

Maker = Callable[[], gym.Env[Any, Any]]


@dataclass(frozen=True)
class Description:
    """Spaces and metadata of one environment; replaces the environment in the parent process."""

    metadata: dict[str, Any]
    render_mode: str | None
    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]

    def close(self) -> None:
        """Do nothing: there is no environment."""


def send_description(make: Maker, pipe: Any, passed_on: tuple[type[Exception], ...]) -> None:
    """Make an environment, send its description or an error, and close it; runs in a separate process."""
    begin_worker()
    try:
        made = make()
        described = Description(dict(made.metadata), made.render_mode, made.observation_space, made.action_space)
        sent: Any = lambda: described  # noqa: E731 - what cloudpickle takes: a task's own space may need it
        pipe.send(CloudpickleWrapper(sent))
    except passed_on as error:
        pipe.send(error)
        return
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent raises it
        pipe.send(_text(0, error, traceback.format_exc()))
        return
    made.close()


def work(
    makers: Sequence[Maker], index: int, _: Any, pipe: Any, parent_pipe: Any, memory: Any, errors: Any, *rest: Any
) -> None:
    """Run Gymnasium's worker; in addition, report an environment that cannot be made, and end with the parent.

    Args:
        makers: functions that make environments, one per worker.
        index: index of this worker.
        _: not used; Gymnasium passes the parent's stand-in for the maker.
        pipe: the worker's end of the pipe.
        parent_pipe: the parent's end of the pipe.
        memory: memory shared with the parent.
        errors: queue to the parent.
        *rest: further arguments of Gymnasium's worker.
    """
    begin_worker()
    told: Any = _Errors(errors)
    try:
        environment = makers[index]()
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent raises it
        told.put((index, None, error, traceback.format_exc()))
        pipe.send((None, False))
        return
    line: Any = _Pipe(pipe)
    _async_worker(index, lambda: environment, line, parent_pipe, memory, told, *rest)


class _Errors:
    """Send error texts instead of exceptions, because some exceptions cannot be pickled."""

    def __init__(self, errors: Any) -> None:
        self._queue = errors

    def put(self, error: tuple[int, Any, Any, str]) -> None:
        index, _, value, trace = error
        self._queue.put((index, RuntimeError, "", _text(index, value, trace)))


class _Pipe:
    """A worker's end of its pipe; the worker ends when the parent is gone."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def recv(self) -> Any:
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            sys.exit(1)

    def send(self, message: Any) -> None:
        try:
            self._connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            sys.exit(1)


def begin_worker() -> None:
    """Ignore signals that the parent handles, and end this process with the parent; call it first."""
    leave_to_parent()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process soon after its parent, even if a step never returns."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        time.sleep(GRACE)
        os._exit(1)


def _text(index: int, error: Any, trace: str) -> str:
    """Return the text of an error for the parent."""
    return str(error) if isinstance(error, TaskError) else f"environment worker {index} raised an error:\n{trace}"
