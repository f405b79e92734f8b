"""Scripts that start training without ``if __name__ == "__main__":``."""

from multiprocessing.process import current_process

UNGUARDED = 87
"""Exit code of a worker that began to run the script of its parent once more."""


def refuse_to_run_again() -> None:
    """End a worker's process that runs the script of its parent instead of its own work.

    A worker starts as a new process, which imports the script that started it. Without a guard this would start
    training anew.

    Raises:
        SystemExit: this is such a process; its parent names the remedy.
    """
    if getattr(current_process(), "_inheriting", False):  # how multiprocessing recognises it too
        raise SystemExit(UNGUARDED)
