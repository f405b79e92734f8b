"""The supervisor of workers, with a transport and a clock that do what a sequence of faults says."""

import heapq
import itertools
import random

import pytest

from tesserl_collectors.supervisor import Supervisor
from tesserl_collectors.transport import Answer, Lost, Progress, Ready
from tesserl_environments import WorkerError
from tesserl_storage.errors import StorageError

pytestmark = pytest.mark.kernel_free

START, PATIENCE = 30.0, 5.0
FAULTS = ["die", "hang", "late", "duplicate", "malformed", "stale"]


class FakeWorkers:
    """Workers that answer, or do what they should not, at times of their own."""

    def __init__(self, seed: int, share: float) -> None:
        self.random, self.share, self.now = random.Random(seed), share, 0.0
        self.lives, self.open, self.killed = {}, {}, []
        self._events, self._order = [], itertools.count()

    def _later(self, delay, event):
        heapq.heappush(self._events, (self.now + delay, next(self._order), event))

    def _fault(self):
        return self.random.choice(FAULTS) if self.random.random() < self.share else "none"

    def start(self, worker, life):
        self.lives[worker] = life
        match self._fault():
            case "die":
                self._later(self.random.uniform(0, START), Lost(worker, life, WorkerError(f"worker {worker} died")))
            case "hang":
                pass
            case "late":
                self._later(START * 1.5, Ready(worker, life))
            case _:
                self._later(self.random.uniform(0, START * 0.9), Ready(worker, life))

    def content(self, worker, life, question):
        return {"worker": worker, "life": life, "number": question.number, "version": question.version}

    def ask(self, worker, question):
        life, pause = self.lives[worker], self.random.uniform(0, PATIENCE * 0.9)
        self.open[worker] = question.number
        content = self.content(worker, life, question)
        answer = Answer(worker, life, question.number, content)
        match self._fault():
            case "die":
                self._later(pause, Lost(worker, life, WorkerError(f"worker {worker} died")))
            case "hang":
                pass
            case "late":
                self._later(PATIENCE * 1.5, answer)
            case "duplicate":
                self._later(pause, answer)
                self._later(pause + self.random.uniform(0, PATIENCE), answer)
            case "malformed":
                self._later(pause, Answer(worker, life, question.number, "nonsense"))
            case "stale":
                self._later(pause / 2, Answer(worker, life, question.number - 1, {**content, "number": -1}))
                self._later(pause, answer)
            case _:
                for step in range(self.random.randrange(3)):
                    self._later(pause * (step + 1), Progress(worker, life))
                    self._later(pause * (step + 2), Progress(worker, life))
                    pause *= step + 2
                self._later(pause, answer)

    def wait(self, timeout):
        until = self.now + timeout
        self.now = min(until, max(self._events[0][0], self.now)) if self._events else until
        due = []
        while self._events and self._events[0][0] <= self.now:
            due.append(heapq.heappop(self._events)[2])
        return due

    def kill(self, worker):
        self.killed.append((worker, self.lives[worker]))


def check(_, content):
    return None if isinstance(content, dict) else "answered nonsense"


def supervised(workers, number, **options):
    return Supervisor(
        workers, number, start_timeout=START, worker_timeout=PATIENCE, check=check, clock=lambda: workers.now, **options
    )


def test_no_sequence_of_faults_loses_steps_or_takes_an_answer_of_a_replaced_worker():
    faults_seen = 0
    for seed in range(5_000):
        workers = FakeWorkers(seed, share=(seed % 4) * 0.15)
        number, rounds = 1 + seed % 4, 4
        supervisor = supervised(workers, number, max_restarts=1_000)
        supervisor.start()
        versions = [0] * number
        for version in range(rounds):
            for worker in range(number):
                supervisor.ask(worker, "collect", {}, steps=7, version=version)
            contents = supervisor.answers()
            assert [content["worker"] for content in contents] == list(range(number))
            assert [content["life"] for content in contents] == [workers.lives[worker] for worker in range(number)]
            assert [content["number"] for content in contents] == [workers.open[worker] for worker in range(number)]
            got = [content["version"] for content in contents]
            assert all(old <= new == version for old, new in zip(versions, got, strict=True))
            versions = got
        assert supervisor.accepted_steps == rounds * number * 7
        assert supervisor.lost_steps % 7 == 0
        assert supervisor.lost_steps <= 7 * supervisor.restarts == 7 * len(workers.killed)
        assert len(set(workers.killed)) == len(workers.killed)  # no life ends twice
        assert sum(workers.lives.values()) == supervisor.restarts
        assert workers.now <= (rounds * number + supervisor.restarts) * (START + 7 * PATIENCE)
        assert len(supervisor.events) == supervisor.restarts
        assert supervisor.exact == (supervisor.restarts == 0)
        faults_seen += supervisor.restarts
    assert faults_seen > 5_000


def test_free_workers_lose_only_the_steps_that_are_counted():
    faults_seen = 0
    for seed in range(5_000):
        workers = FakeWorkers(seed, share=(seed % 4) * 0.15)
        number, wanted = 1 + seed % 4, 12
        supervisor = supervised(workers, number, max_restarts=1_000, repeats=False)
        received, asked, version, rounds = [], 0, 0, 0
        while len(received) < wanted:
            rounds += 1
            received += supervisor.receive(PATIENCE)
            version += workers.random.randrange(3)
            for worker in supervisor.idle:
                supervisor.ask(worker, "collect", {}, steps=7, version=version)
                asked += 7
        for each in received:
            assert (each.content["worker"], each.content["life"]) == (each.worker, each.life)
            assert (each.content["number"], each.content["version"]) == (each.question.number, each.question.version)
        assert len({each.question.number for each in received}) == len(received)  # none is accepted twice
        for worker in range(number):
            own = [(each.life, each.question.version) for each in received if each.worker == worker]
            assert own == sorted(own)
        open_steps = 7 * len(supervisor.open_versions)
        assert asked == supervisor.accepted_steps + supervisor.lost_steps + open_steps
        assert supervisor.accepted_steps == 7 * len(received)
        assert supervisor.restarts == len(workers.killed) == sum(supervisor.lives) == len(supervisor.events)
        assert len(set(workers.killed)) == len(workers.killed)
        assert workers.now <= (wanted + number + supervisor.restarts) * (START + 7 * PATIENCE)
        assert rounds <= workers.now / PATIENCE + 12 * (wanted + number + supervisor.restarts)
        faults_seen += supervisor.restarts
    assert faults_seen > 5_000


def test_a_replacement_continues_the_lives_of_a_checkpoint():
    workers = FakeWorkers(1, share=0.0)
    supervisor = supervised(workers, 2, max_restarts=3)
    supervisor.load_state_dict({"lives": [4, 0], "restarts": 4, "lost_steps": 9}, anew=True)
    supervisor.max_restarts = 4
    assert supervisor.metrics() == {"workers/restarts": 4, "workers/lost_steps": 9}
    for worker in range(2):
        supervisor.ask(worker, "collect", {})
    assert [answer["life"] for answer in supervisor.answers()] == [5, 1]
    with pytest.raises(StorageError, match=r"collector.supervisor: expected the lives of 2 workers, got 1"):
        supervised(workers, 2).load_state_dict({"lives": [1], "restarts": 0, "lost_steps": 0}, anew=False)


def test_an_error_that_every_worker_would_raise_ends_the_run_at_once():
    workers = FakeWorkers(1, share=0.0)
    workers.lives = {0: 0, 1: 0}
    workers.start = lambda worker, life: workers._later(1.0, Lost(worker, life, LookupError("no such task")))
    supervisor = supervised(workers, 2, max_restarts=100, fatal=(LookupError,))
    supervisor.ask(0, "collect", {})
    with pytest.raises(LookupError, match="no such task"):
        supervisor.answers()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("die", r"worker 1 died"),
        (
            "hang",
            r"collector worker 1 made no step within 5 s; raise environment.worker_timeout if the task takes that",
        ),
        ("malformed", r"collector worker 1 answered nonsense"),
    ],
)
def test_without_restarts_a_lost_worker_is_an_error_that_names_it(fault, told):
    workers = FakeWorkers(1, share=0.0)
    supervisor = supervised(workers, 2)
    supervisor.start()
    for worker in range(2):
        supervisor.ask(worker, "collect", {})
    supervisor.answers()
    workers._fault = lambda: fault
    supervisor.ask(1, "collect", {})
    with pytest.raises(WorkerError, match=told):
        supervisor.answers()
    assert workers.killed == [(1, 0)]


def test_starting_has_a_timeout_of_its_own():
    workers = FakeWorkers(1, share=0.0)
    workers._fault = lambda: "hang"
    supervisor = supervised(workers, 1)
    supervisor.start()
    supervisor.ask(0, "collect", {})
    with pytest.raises(WorkerError, match=r"collector worker 0 did not start within 30 s; raise environment.start_tim"):
        supervisor.answers()
    assert workers.now == START


def test_a_worker_that_does_not_become_ready_is_late_also_without_a_question():
    workers = FakeWorkers(1, share=0.0)
    supervisor = supervised(workers, 2)
    supervisor.start()
    supervisor.wait_until_ready()
    assert workers.now < START
    supervisor.wait_until_ready()  # both are
    workers._fault = lambda: "hang"
    late = supervised(workers, 1)
    late.start()
    with pytest.raises(WorkerError, match=r"collector worker 0 did not start within 30 s"):
        late.wait_until_ready()


def test_an_answer_that_arrived_counts_however_late_it_is_looked_for():
    workers = FakeWorkers(1, share=0.0)
    supervisor = supervised(workers, 1)
    supervisor.start()
    supervisor.ask(0, "collect", {})
    supervisor.answers()
    supervisor.ask(0, "collect", {})
    workers.now += 1_000 * PATIENCE  # the learner learns
    assert supervisor.answers()[0]["number"] == 2
    with pytest.raises(ValueError, match="version must be at least 0, got -1"):
        supervisor.ask(0, "collect", {}, version=-1)
    supervisor.ask(0, "collect", {})
    with pytest.raises(ValueError, match="worker 0 still has question 3"):
        supervisor.ask(0, "collect", {})
