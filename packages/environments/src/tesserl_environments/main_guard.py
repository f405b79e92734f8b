"""Detect scripts that start training without ``if __name__ == "__main__":``."""

from multiprocessing.process import current_process

UNGUARDED = 87
"""Exit code of a worker that began to run its parent's script again."""


def refuse_to_run_again() -> None:
    """Exit if this is a worker process that runs its parent's script again.

    A worker is a new process, which imports the script that started it. Without the guard the script would start
    training again.

    Raises:
        SystemExit: this is such a process; its parent reports the remedy.
    """
    if getattr(current_process(), "_inheriting", False):  # multiprocessing uses the same check
        raise SystemExit(UNGUARDED)
