"""Workers in processes of this machine: their answers, their errors, and one that hangs."""

import multiprocessing

import pytest

from tesserl_collectors import ProcessTransport, Supervisor
from tesserl_environments import WorkerError

from . import answering as workers

PATIENCE = 300.0
"""Seconds, on a machine that is busy."""


@pytest.fixture
def answering():
    """Return a function that makes a supervisor of processes that answer with their number."""

    def make(number):
        transports.append(ProcessTransport(workers.Answering, (WorkerError,)))
        supervisor = Supervisor(transports[-1], number, start_timeout=PATIENCE, worker_timeout=PATIENCE)
        supervisor.start()
        return supervisor

    transports = []
    yield make
    for transport in transports:
        transport.close(0.0)
    assert not multiprocessing.active_children()


def test_a_stopped_worker_is_named(answering):
    supervisor = answering(2)
    for size in (3, 100_000, 5):  # memory grows, and is used again
        for worker in range(2):
            supervisor.ask(worker, "number", {"size": size})
        assert [answer.tolist() for answer in supervisor.answers()] == [[0] * size, [1] * size]
    supervisor.ask(0, "number", {"size": 3})
    supervisor.ask(1, "stop", {}, timeout=1.0)
    with pytest.raises(WorkerError, match=r"^collector worker 1 made no step within 1 s; raise environment\."):
        supervisor.answers()


def test_an_error_in_a_worker_is_raised_with_its_traceback(answering):
    supervisor = answering(1)
    supervisor.ask(0, "raise", {})
    with pytest.raises(WorkerError, match=r"(?s)^collector worker 0 raised an error:\n.*LookupError: the task broke"):
        supervisor.answers()
