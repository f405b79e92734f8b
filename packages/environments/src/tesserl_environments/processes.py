"""Start and end the processes of environment workers."""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

import gymnasium as gym
from gymnasium.vector.utils import CloudpickleWrapper

from tesserl_environments.errors import WorkerError
from tesserl_environments.main_guard import UNGUARDED, refuse_to_run_again
from tesserl_environments.signals import held_back
from tesserl_environments.worker_process import GRACE, Description, send_description

START_METHOD = "spawn"
"""Start method of worker processes: they do not inherit the parent's threads, memory and open files."""


def describe(
    make: Callable[[], gym.Env[Any, Any]], *, timeout: float, passed_on: tuple[type[Exception], ...] = ()
) -> Description:
    """Return the spaces of an environment, which a separate process makes and closes.

    Args:
        make: function that makes the environment.
        timeout: seconds to make the environment.
        passed_on: errors of ``make`` that are raised here unchanged.

    Raises:
        WorkerError: the environment could not be made, or not in time.
    """
    refuse_to_run_again()
    context: Any = multiprocessing.get_context(START_METHOD)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=send_description, args=(CloudpickleWrapper(make), theirs, passed_on), daemon=True)
    at_exit = ended_at_exit([process])
    try:
        with held_back():
            process.start()
        theirs.close()
        if not ours.poll(timeout):
            raise WorkerError(f"environment worker 0 {late_start(timeout)}")
        answer = ours.recv()
        end_processes([process], GRACE)  # gives it time to close its environment
    except (EOFError, OSError) as error:
        raise death("environment worker 0", process, timeout) from error
    finally:
        ours.close()
        end_processes([process], 0.0)
        at_exit.cancel()
    if isinstance(answer, CloudpickleWrapper):
        description: Description = answer()
        return description
    raise answer if isinstance(answer, passed_on) else WorkerError(answer)


def end_processes(processes: Sequence[BaseProcess], patience: float) -> list[int]:
    """Wait for processes to end, then kill the rest; return the indices of those that were killed."""
    deadline = time.monotonic() + patience
    late = []
    started = [(index, process) for index, process in enumerate(processes) if process.pid is not None]
    for index, process in started:
        process.join(max(deadline - time.monotonic(), 0.0))
        if process.is_alive():
            late.append(index)
            process.kill()
    for _, process in started:
        process.join()
    return late


def ended_at_exit(processes: Sequence[BaseProcess]) -> Finalize:
    """End processes when this one exits; Python would send SIGTERM, which they ignore, and wait forever."""
    return Finalize(None, end_processes, (processes, 0.0), exitpriority=10)


def late_start(timeout: float) -> str:
    """Return the error text for a worker that has not started."""
    return (
        f"did not make its environment within {timeout:g} s; raise start_timeout if the task takes that long to start"
    )


def death(worker: str, process: BaseProcess, timeout: float) -> WorkerError:
    """Return the error for a worker that died.

    Args:
        worker: name and number of the worker.
        process: process of the worker.
        timeout: seconds for the process to end.
    """
    process.join(timeout)  # the pipe closes before the exit code is available
    if process.exitcode == UNGUARDED:
        return WorkerError(
            f"{worker} began to run the script that started it: a worker imports that script; "
            'put what the script does below: if __name__ == "__main__":'
        )
    return WorkerError(f"{worker} died (exit code {process.exitcode})")
