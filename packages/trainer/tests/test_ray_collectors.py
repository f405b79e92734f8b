"""Runs whose environments are stepped by actors of Ray, which die, hang and answer nonsense. `nox -s ray` runs them."""

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tesserl_analysis.record import read_metrics
from tesserl_collectors.supervisor import Supervisor
from tesserl_collectors.weights import SentWeights
from tesserl_configs import load_config
from tesserl_environments import WorkerError
from tesserl_trainer import train
from tesserl_training.checkpoints.run_checkpoints import Checkpoints

from . import troubled
from .test_process_collectors import STATISTICS, learned, telling, told_by_others
from .test_resume import LSTM, outcome

ray = pytest.importorskip("ray", reason="needs tesserl-trainer[ray]")
pytestmark = pytest.mark.ray

from tesserl_collectors import ray_cluster  # noqa: E402
from tesserl_collectors.ray_transport import RayTransport, RayWeights  # noqa: E402

START = 300.0


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """One cluster for all runs of this module, which stay connected to it."""
    own = f"{ray_cluster.PREFIX}{os.getpid()}-*"
    with ray_cluster.ray_cluster(None, 6):
        assert len(list(ray_cluster.SHORT.glob(own))) == 1
        yield
    assert not ray.is_initialized()
    assert not list(ray_cluster.SHORT.glob(own))


def collectors(workers, **options):
    block = ", ".join(f"{key}: {value}" for key, value in {"kind": "ray", "workers": workers, **options}.items())
    return {"name: tiny": f"name: tiny\ncollectors: {{{block}}}"}


def doomed(write_config, tmp_path, algorithm, changes, num_envs=10):
    """A configuration whose task gets the first worker into trouble that reaches the step of its plan; and the plan."""
    plan = tmp_path / "plan.json"
    register = "gymnasium.register('DoomedActor-v0', Doomed, max_episode_steps=99)"
    (tmp_path / "doomed_actor.py").write_text(f"import gymnasium\nfrom troubled import Doomed\n{register}\n")
    places = f"[{tmp_path}, {Path(troubled.__file__).parent}]"
    task = f"{{id: 'doomed_actor:DoomedActor-v0', module_path: {places}, kwargs: {{path: {plan}}}"
    task += f", num_envs: {num_envs}}}"
    return write_config(algorithm=algorithm, **changes | {"{id: CartPole-v1, num_envs: 3}": task}), plan


def state_of(run_dir):
    return json.loads((Checkpoints(run_dir).latest() / "state.json").read_text())


def last_of(run_dir, name):
    return [value for _, key, value in (row[:3] for row in read_metrics(run_dir / "metrics.csv")) if key == name][-1]


@pytest.mark.parametrize(
    ("algorithm", "changes", "numbers"),
    [("grpo", STATISTICS, (1, 2, 5)), ("dpo", STATISTICS | {"num_groups: 1": "num_groups: 4"}, (1, 2))],
)
def test_groups_are_the_same_with_any_number_of_workers_also_if_one_is_killed(
    write_config, tmp_path, algorithm, changes, numbers
):
    outcomes = []
    for workers in numbers:
        config, _ = doomed(write_config, tmp_path, algorithm, changes | collectors(workers))
        outcomes.append(without_counts(learned(train(load_config(config), run_dir=tmp_path / str(workers)))))
    config, plan = doomed(write_config, tmp_path, algorithm, changes | collectors(2))
    plan.write_text(json.dumps({"seed": None, "step": 9, "kind": "kill"}))
    run_dir = train(load_config(config), run_dir=tmp_path / "killed")
    assert not plan.exists()
    assert state_of(run_dir)["exact"]
    assert [event["event"] for event in state_of(run_dir)["events"]] == ["lost worker"]
    assert last_of(run_dir, "workers/restarts") == 1
    assert all(each == outcomes[0] for each in [*outcomes, without_counts(learned(run_dir))])


def without_counts(result):
    return {**result, "metrics": [row for row in result["metrics"] if not row[1].startswith("workers/")]}


class Shuffled:
    """Waits for the answers of all workers and delivers them in another order."""

    def __init__(self, transport, seed):
        self._transport, self._random, self._held = transport, random.Random(seed), []
        self.start, self.kill = transport.start, transport.kill
        self._open = 0

    def ask(self, worker, question):
        self._open += 1
        self._transport.ask(worker, question)

    def wait(self, timeout):
        events = self._transport.wait(timeout)
        answers = [event for event in events if hasattr(event, "number")]
        self._held += answers
        others = [event for event in events if not hasattr(event, "number")]
        if len(self._held) < self._open:
            return others
        held, self._held, self._open = self._held, [], 0
        self._random.shuffle(held)
        return others + held


@pytest.fixture
def shuffle(monkeypatch):
    """Return a function that shuffles the answers of all runs that follow."""

    def begin(seed):
        original = Supervisor.__init__

        def init(self, transport, *arguments, **options):
            original(self, Shuffled(transport, seed), *arguments, **options)

        monkeypatch.setattr(Supervisor, "__init__", init)

    return begin


def test_the_order_of_answers_does_not_matter_and_a_run_is_resumed_exactly(write_config, tmp_path, shuffle):
    changes = LSTM | STATISTICS | {"num_envs: 3": "num_envs: 6"} | collectors(3)
    config = load_config(write_config(algorithm="ppo", **changes))
    whole = outcome(train(config, run_dir=tmp_path / "in order"))
    shuffle(3)
    run_dir = train(config, run_dir=tmp_path / "shuffled")
    assert outcome(run_dir) == whole
    kept = Checkpoints(run_dir).paths()[-2]
    (run_dir / "evaluation.json").unlink()
    train(config, run_dir=run_dir, resume=kept.name)
    assert outcome(run_dir) == whole


@pytest.mark.parametrize("kind", ["kill", pytest.param("raise", marks=pytest.mark.soak)])
def test_a_lost_worker_of_ppo_is_replaced_named_and_counted(write_config, tmp_path, kind):
    config, plan = doomed(write_config, tmp_path, "ppo", collectors(2), num_envs=6)
    plan.write_text(json.dumps({"seed": None, "step": 13, "kind": kind}))
    run_dir = train(load_config(config), run_dir=tmp_path / "run")
    (event,) = state_of(run_dir)["events"]
    assert event["lost_steps"] == 30
    assert event["life"] == 0
    assert event["error"].startswith(f"collector worker {event['worker']} ")
    assert not state_of(run_dir)["exact"]
    assert last_of(run_dir, "workers/restarts") == 1
    assert last_of(run_dir, "workers/lost_steps") == 30
    assert state_of(run_dir)["counters"]["step"] == 240


def test_actors_import_no_torchrl(write_config, tmp_path):
    changes = collectors(2, mode="async") | telling(tmp_path, 4)
    train(load_config(write_config(**changes)), run_dir=tmp_path / "run")
    told = told_by_others(tmp_path)
    assert len(told) == 2
    assert set(told.values()) == {"False"}


def test_free_workers_feed_iqn_and_a_run_is_continued(write_config, tmp_path):
    config, plan = doomed(write_config, tmp_path, "iqn", collectors(2, mode="async", max_lag=6), num_envs=4)
    plan.write_text(json.dumps({"seed": None, "step": 13, "kind": "kill"}))
    run_dir = train(load_config(config), run_dir=tmp_path / "run")
    state = state_of(run_dir)
    assert not state["exact"]
    assert [event["event"] for event in state["events"]] == ["lost worker"]
    assert last_of(run_dir, "lag/max") <= 6
    names = {row[1] for row in read_metrics(run_dir / "metrics.csv")}
    assert names >= {"lag/mean", "limiter/learner_waits", "limiter/collectors_wait", "workers/refused_steps"}
    train(load_config(config, ["total_steps=300"]), run_dir=run_dir, resume=True)
    assert state_of(run_dir)["counters"]["step"] == 300
    assert last_of(run_dir, "workers/restarts") == 1


def test_more_workers_than_the_cluster_has_cpus_are_refused():
    message = r"^collectors.workers: expected at most the 6 CPUs of the cluster, got 7; lower it, or add machines"
    ray_cluster.require_cpus(6)
    with pytest.raises(WorkerError, match=message):
        ray_cluster.require_cpus(7)


@pytest.fixture
def answering():
    """Return a function that makes a supervisor of actors that answer with their number."""

    def make(number, **options):
        transports.append(RayTransport(troubled.Answering, SentWeights(), RayWeights(), (WorkerError,)))
        return Supervisor(
            transports[-1], number, start_timeout=START, worker_timeout=START, block="collectors", **options
        )

    transports = []
    yield make
    for transport in transports:
        transport.close(0.0)


def test_actors_that_raise_stop_or_send_nonsense_are_replaced(answering):
    def check(question, content):
        return "answered with too much" if question.name == "number" and len(content) > 5 else None

    supervisor = answering(2, max_restarts=2, check=check, repeats=False)
    transport = supervisor.transport
    until(supervisor, lambda: supervisor.idle == [0, 1])
    pids = [transport._lines[worker].pid for worker in (0, 1)]
    for worker in (0, 1):
        supervisor.ask(worker, "number", {"size": 3})
    assert [answer.tolist() for answer in received(supervisor, 2)] == [[0] * 3, [1] * 3]
    supervisor.ask(0, "number", {"size": 100})
    supervisor.ask(1, "stop", {}, timeout=3.0)
    until(supervisor, lambda: supervisor.restarts == 2 and supervisor.idle == [0, 1])
    wait_until_gone(pids)
    told = sorted(event["error"] for event in supervisor.events)
    assert told[0] == "collector worker 0 answered with too much"
    assert told[1].startswith("collector worker 1 made no step within 3 s; raise collectors.worker_timeout")
    supervisor.ask(0, "raise", {})
    with pytest.raises(WorkerError, match=r"(?s)^collector worker 0 raised an error:\n.*LookupError: the task broke"):
        until(supervisor, lambda: False)


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(pids):
    """A killed process takes a moment to end."""
    deadline = time.monotonic() + START
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline, f"processes {pids} are still running"
        time.sleep(0.05)


def received(supervisor, number):
    answers = []
    until(supervisor, lambda: len(answers) == number, answers)
    return [answer.content for answer in sorted(answers, key=lambda answer: answer.worker)]


def until(supervisor, condition, answers=None):
    while not condition():  # every wait of a supervisor ends: a worker that is late is lost, and restarts are counted
        arrived = supervisor.receive(1.0)
        if answers is not None:
            answers += arrived


@pytest.mark.soak
@pytest.mark.parametrize("minutes", [float(os.environ.get("SOAK_MINUTES", "30"))])
def test_memory_stays_flat_while_a_worker_is_killed_every_half_minute(write_config, tmp_path, minutes, record_property):
    changes = collectors(3, mode="async", max_lag=100, max_restarts=10_000) | {
        "num_envs: 3": "num_envs: 6",
        "total_steps: 240": "total_steps: 1000000000",
        "{interval: 60, episodes: 2": "{interval: 1000000, episodes: 2",
        "{interval: 40, keep_last: 2}": "{interval: 1000000, keep_last: 2}",
        "{interval: 30, tensorboard": "{interval: 2000, tensorboard",
        "collect_steps: 1": "collect_steps: 16",
        "capacity: 90": "capacity: 5000",
    }
    transports = []
    original = RayTransport.__init__

    def init(self, *arguments):
        original(self, *arguments)
        transports.append(self)

    stop, measured = threading.Event(), []

    def disturb():
        ends = time.monotonic() + 60 * minutes
        chosen = random.Random(1)
        while time.monotonic() < ends and not stop.wait(30.0):
            lines = [line for transport in transports for line in transport._lines.values() if line.pid]
            if lines:
                os.kill(chosen.choice(lines).pid, signal.SIGKILL)
            measured.append((resident(os.getpid()), resident_store()))
        os.kill(os.getpid(), signal.SIGTERM)  # the run writes a checkpoint and stops

    thread = threading.Thread(target=disturb, daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RayTransport, "__init__", init)
        thread.start()
        with pytest.raises(Exception, match="stopped by SIGTERM"):
            train(load_config(write_config(algorithm="iqn", **changes)), run_dir=tmp_path / "run")
    stop.set()
    state = state_of(tmp_path / "run")
    assert Counter(event["event"] for event in state["events"])["lost worker"] >= minutes
    warm, counters = measured[len(measured) // 4 :], state["counters"]
    record_property("kills", len(state["events"]))
    record_property("learner_and_store_bytes", measured)
    record_property("counters", counters)
    assert max(learner for learner, _ in warm) < 1.2 * warm[0][0]
    assert max(store for _, store in warm) < 1.2 * warm[0][1] + 2**24
    assert abs(counters["updates"] - (counters["step"] - 30) / 2) <= 96  # one update in two steps, within a chunk


def resident(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def resident_store():
    """Bytes of all objects in Ray's store."""
    return ray.cluster_resources().get("object_store_memory", 0) - ray.available_resources().get(
        "object_store_memory", 0
    )
