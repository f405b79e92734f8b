"""The errors of this package."""


class EnvironmentArgumentError(ValueError):
    """An environment cannot be made from the given arguments; the message begins with the name of the wrong one."""


class TaskError(RuntimeError):
    """A task raised an error or returned something that its interface does not allow; the message names it."""


class WorkerError(RuntimeError):
    """An environment worker raised, died or did not answer; the message names it."""
