"""Collector workers as processes on this machine: a transport for `Supervisor`, and the code of each process."""

import contextlib
import ctypes
import logging
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, Protocol, TypeVar

from tesserl_collectors.process import prepare_process
from tesserl_collectors.shared_memory import Inbox, Outbox
from tesserl_collectors.transport import Answer, Event, Lost, Name, Progress, Question, Ready, collector_name
from tesserl_environments import WorkerError
from tesserl_environments.processes import START_METHOD, death, end_processes, ended_at_exit
from tesserl_environments.signals import held_back
from tesserl_environments.worker_process import GRACE, begin_worker

CONTEXT: Any = multiprocessing.get_context(START_METHOD)

POLL = 0.5
"""Seconds between two checks of the workers' progress."""

MOST_TEXT = 8_000
"""Largest length of an error in characters; longer errors are cut, so that one write sends the message."""


class Serving(Protocol):
    """The worker's side, which answers questions."""

    def answer(self, name: str, arguments: dict[str, Any]) -> Any:
        """Return the answer to a question: plain data and arrays."""

    def close(self) -> None:
        """Close the environments."""


Make = Callable[[int, int, Callable[[], None]], Serving]
"""Makes the worker's side in its process, from the worker's index, its life, and a function that reports progress."""


class _Line:
    """The learner's side of one process."""

    def __init__(self, process: BaseProcess, pipe: Any, progress: Any, life: int) -> None:
        self.process, self.pipe, self.life = process, pipe, life
        self.inbox: Inbox | None = None
        self._progress, self._seen = progress, 0

    def has_moved(self) -> bool:
        """Return whether the worker has made progress since the last call."""
        before, self._seen = self._seen, self._progress.value
        return self._seen != before


class ProcessTransport:
    """Start, ask and kill worker processes.

    Args:
        make: makes the worker's side, which answers questions.
        passed_on: errors of a worker that are raised here unchanged.
        name: returns the name of a worker for messages.
    """

    def __init__(self, make: Make, passed_on: tuple[type[Exception], ...], name: Name = collector_name) -> None:
        self._make, self._passed_on, self._name = make, passed_on, name
        self._lines: dict[int, _Line] = {}
        self._processes: list[BaseProcess] = []
        self._names: list[str] = []
        self._at_exit = ended_at_exit(self._processes)

    def start(self, worker: int, life: int) -> None:
        """Start the process of a worker."""
        ours, theirs = CONTEXT.Pipe()
        progress = CONTEXT.RawValue(ctypes.c_int64)
        arguments = (self._make, worker, life, theirs, progress, self._passed_on, self._name(worker))
        process = CONTEXT.Process(target=serve, args=arguments, daemon=False)  # its environments may be processes
        with held_back():
            process.start()
        theirs.close()
        self._processes.append(process)
        self._names.append(self._name(worker))
        self._lines[worker] = _Line(process, ours, progress, life)

    def ask(self, worker: int, question: Question) -> None:
        """Send a question; if the process is gone, ``wait`` reports it."""
        with contextlib.suppress(OSError):
            self._lines[worker].pipe.send((question.number, question.name, question.arguments))

    def wait(self, timeout: float) -> Sequence[Event]:
        """Return the events that have arrived, after at most ``timeout`` seconds."""
        events: list[Event] = [Progress(i, line.life) for i, line in self._lines.items() if line.has_moved()]
        places = {line.pipe: worker for worker, line in self._lines.items()}
        places |= {line.process.sentinel: worker for worker, line in self._lines.items()}
        ready = connection.wait(list(places), 0.0 if events else min(timeout, POLL))
        return [*events, *(self._read(worker) for worker in sorted({places[each] for each in ready}))]

    def _read(self, worker: int) -> Event:
        line, name = self._lines[worker], self._name(worker)
        try:
            message = line.pipe.recv()
            match message:
                case ("ready",):
                    return Ready(worker, line.life)
                case ("error", Exception() as error):
                    return Lost(worker, line.life, error)
                case ("answer", int(number), list(sizes), bool(new)):
                    return Answer(worker, line.life, number, self._content(line, sizes, new))
        except (EOFError, OSError):
            return Lost(worker, line.life, death(name, line.process, GRACE))
        except Exception as error:  # noqa: BLE001 - a message that cannot be read fails in many ways
            return Lost(worker, line.life, WorkerError(f"{name} sent something unreadable ({error})"))
        return Lost(worker, line.life, WorkerError(f"{name} sent something else than an answer: {message!r:.100}"))

    def _content(self, line: _Line, sizes: list[int], new: bool) -> Any:
        if new:
            if not line.pipe.poll(GRACE):
                raise EOFError
            descriptor = recv_handle(line.pipe)
            line.inbox = Inbox(descriptor)
            os.close(descriptor)
        if line.inbox is None:
            raise ValueError("an answer without memory")
        return line.inbox.get(sizes)

    def kill(self, worker: int) -> None:
        """End the process of a worker at once."""
        line = self._lines.pop(worker)
        end_processes([line.process], 0.0)
        line.pipe.close()

    def close(self, patience: float) -> None:
        """End all processes and wait for them.

        Args:
            patience: seconds that workers get to close their environments; 0 ends them at once, as after an error.
        """
        if not patience:
            end_processes(self._processes, 0.0)
        for line in self._lines.values():
            line.pipe.close()  # ends a worker that waits for a question
        for late in end_processes(self._processes, patience):
            logging.getLogger(__name__).warning(
                "warning: %s did not close its environments within %g s and was ended", self._names[late], patience
            )
        self._lines.clear()
        self._at_exit.cancel()


class Closing(Protocol):
    """Interface of a transport that can be closed."""

    def close(self, patience: float) -> None:
        """End all workers, after at most ``patience`` seconds to close their environments."""


ClosingT = TypeVar("ClosingT", bound=Closing)


@contextlib.contextmanager
def closed_afterwards(
    transport: ClosingT, timeout: float, *, stopped: type[BaseException] = KeyboardInterrupt
) -> Iterator[ClosingT]:
    """End workers at the end of a ``with`` block: at once after an error, soon if the program is stopped.

    Args:
        transport: transport that started them.
        timeout: seconds that workers get to close their environments.
        stopped: exception that stops a program in an orderly way; workers then get a part of ``timeout``.
    """
    patience = 0.0
    try:
        yield transport
        patience = timeout
    except stopped:
        patience = min(timeout, GRACE)
        raise
    finally:
        transport.close(patience)


class NotWanted(Exception):  # noqa: N818 - not an error: the parent is stopping
    """The parent has closed the pipe and does not need the answer any more."""


def serve(
    make: Make,
    worker: int,
    life: int,
    pipe: Any,
    progress: Any,
    passed_on: tuple[type[Exception], ...],
    name: str,
) -> None:
    """Answer questions and count progress until the pipe closes; runs in a separate process."""
    begin_worker()
    prepare_process(1)

    looked = time.monotonic()

    def report() -> None:
        nonlocal looked
        progress.value += 1
        if time.monotonic() - looked > POLL:
            looked = time.monotonic()
            if pipe.poll():  # the parent sends nothing before the answer, so the pipe is closed
                raise NotWanted

    try:
        side = make(worker, life, report)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent raises it
        _send(pipe, ("error", sent_error(name, error, passed_on)))
        return
    try:
        _send(pipe, ("ready",))
        _answer_questions(side, pipe)
    except NotWanted:
        pass
    except Exception as error:  # noqa: BLE001 - as above
        _send(pipe, ("error", sent_error(name, error, passed_on)))
    finally:
        side.close()


def _answer_questions(side: Serving, pipe: Any) -> None:
    with contextlib.closing(Outbox()) as outbox:
        while True:
            try:
                number, name, arguments = pipe.recv()
            except (EOFError, OSError):  # the parent has closed the pipe or is gone
                return
            sizes, descriptor = outbox.put(side.answer(name, arguments))
            _send(pipe, ("answer", number, sizes, descriptor is not None))
            if descriptor is not None:
                send_handle(pipe, descriptor, os.getppid())


def _send(pipe: Any, message: Any) -> None:
    try:
        pipe.send(message)
    except OSError:  # the parent is gone
        os._exit(1)


def sent_error(name: str, error: Exception, passed_on: tuple[type[Exception], ...]) -> Exception:
    """Return the error for the learner to raise: unchanged if it is in ``passed_on``, otherwise only its text."""
    if isinstance(error, passed_on):
        return type(error)(f"{name}: {error}"[:MOST_TEXT])
    return WorkerError(f"{name} raised an error:\n{traceback.format_exc()[-MOST_TEXT:]}")
