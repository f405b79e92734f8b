"""Stepping and closing vector environments, without ever waiting for a worker process for ever."""

from multiprocessing import TimeoutError as WorkerTimeout
from multiprocessing.connection import wait as wait_for_any
from typing import Any

from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv
from numpy.typing import NDArray


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


def step(environments: VectorEnv[Any, Any, Any], actions: NDArray[Any], timeout: float) -> tuple[Any, ...]:
    """``environments.step(actions)`` that never waits for ever.

    Raises:
        RuntimeError: a worker process died, or took longer than ``timeout`` seconds; the message names it.
    """
    if not isinstance(environments, AsyncVectorEnv):
        return environments.step(actions)
    try:
        environments.step_async(actions)
        return environments.step_wait(timeout=timeout)
    except WorkerTimeout as error:
        late = [i for i, pipe in enumerate(environments.parent_pipes) if not pipe.poll(0)]
        raise RuntimeError(
            f"environment worker {_names(late)} did not answer within {timeout:g} s; raise "
            "environment.worker_timeout if its steps take that long"
        ) from error
    except (EOFError, BrokenPipeError, ConnectionResetError) as error:
        gone = wait_for_any([process.sentinel for process in environments.processes], timeout)
        dead = [i for i, process in enumerate(environments.processes) if process.sentinel in gone]
        for i in dead:  # its files close before it can be waited for
            environments.processes[i].join(timeout)
        codes = [environments.processes[i].exitcode for i in dead]
        raise RuntimeError(f"environment worker {_names(dead)} died (exit code {codes})") from error


def close(environments: VectorEnv[Any, Any, Any], *, failed: bool) -> None:
    """Closes a vector environment; after a failure without waiting for workers, which may hang."""
    if isinstance(environments, AsyncVectorEnv):
        environments.close(terminate=failed)
    else:
        environments.close()


def _names(workers: list[int]) -> str:
    return ", ".join(map(str, workers)) or "(unknown)"
