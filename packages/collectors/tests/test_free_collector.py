"""Workers that collect freely, with a transport and a clock that do what a sequence of faults says."""

import numpy as np
import pytest
import torch
from torch import nn

from tesserl_collectors.free_collector import FreeCollector, WorkerWindows
from tesserl_collectors.process_collector import check_answer
from tesserl_collectors.supervisor import Supervisor
from tesserl_replay import NStepWindow

from .test_supervisor import PATIENCE, START, FakeWorkers

pytestmark = pytest.mark.kernel_free

STEPS, ENVS = 4, 2


class Walkers(FakeWorkers):
    """Their observation ``[worker, life, environment, t]`` says where a step belongs."""

    def __init__(self, seed, share):
        super().__init__(seed, share)
        self.times = {}

    def content(self, worker, life, question):
        begin = self.times.setdefault((worker, life), 0)
        self.times[worker, life] = begin + STEPS
        place = np.zeros((STEPS + 1, ENVS, 4), np.float32)
        place[..., 0], place[..., 1], place[..., 2] = worker, life, np.arange(ENVS)
        place[..., 3] = np.arange(begin, begin + STEPS + 1)[:, None]
        flag = np.zeros((STEPS, ENVS, 1), bool)
        arrays = {
            "observation": place[:-1],
            "action": np.zeros((STEPS, ENVS), np.int64),
            "next/observation": place[1:],
            "next/reward": np.ones((STEPS, ENVS, 1), np.float32),
            **{f"next/{name}": flag for name in ("terminated", "truncated", "done")},
        }
        return {"arrays": arrays, "episodes": [[1.0, question.number]]}


class TwoVersions:
    """Weights of which two versions are kept."""

    def __init__(self):
        self.kept = [None, None]

    def has_room(self, reading):
        return self.kept[0] not in reading

    def publish(self, tensors, version):
        self.kept = [self.kept[1], version]


def free_collector(workers, number, max_lag, updates):
    supervisor = Supervisor(
        workers, number, start_timeout=START, worker_timeout=PATIENCE, max_restarts=1_000, repeats=False,
        check=check_answer(ENVS), clock=lambda: workers.now,
    )  # fmt: skip
    collector = FreeCollector(
        supervisor, TwoVersions(), nn.Linear(1, 1), number * ENVS, max_lag=max_lag, updates_of=lambda steps: updates
    )
    return supervisor, collector


def test_every_step_is_handed_out_once_and_no_transition_crosses_a_life():
    restarts = refused = 0
    for seed in range(200):
        number, updates, max_lag = 1 + seed % 4, 1 + seed % 3, (0, 1, 4, 40)[seed % 4]
        workers = Walkers(seed, share=(seed % 5) * 0.1)
        supervisor, collector = free_collector(workers, number, max_lag, updates)
        windows = WorkerWindows(lambda: NStepWindow(3, 1.0), collector)
        version = step = 0
        firsts, lags = [], []
        for _ in range(15):
            collector.set_weights(version, step)
            batch = collector.collect(STEPS)
            step += batch.numel()
            transitions = windows.extend(batch)
            begin, end = transitions["observation"], transitions["next", "observation"]
            assert torch.equal(begin[:, :3], end[:, :3])  # of one worker, life and environment
            assert torch.equal(begin[:, 3] + 3, end[:, 3])
            firsts += [tuple(row) for row in begin.tolist()]
            lags.append(collector.metrics()["lag/max"])
            assert set(supervisor.open_versions.values()) <= set(collector._weights.kept)
            version += updates
            workers.now += workers.random.uniform(0, 3)  # the learner learns
        assert len(set(firsts)) == len(firsts)
        assert max(lags) <= max_lag
        assert supervisor.accepted_steps == step + collector.refused_steps + STEPS * ENVS * len(collector._ready)
        assert len(collector.pop_episodes()) == step // (STEPS * ENVS)
        assert supervisor.restarts == len(supervisor.events)
        restarts += supervisor.restarts
        refused += collector.refused_steps
    assert restarts > 50
    assert refused > 0


def test_workers_wait_where_their_weights_would_become_too_old():
    workers = Walkers(1, share=0.0)
    supervisor, collector = free_collector(workers, 4, max_lag=6, updates=3)
    version = 0
    for _ in range(20):
        collector.set_weights(version, 0)
        collector.collect(STEPS)
        assert len(supervisor.open_versions) <= 2  # 6 updates are those of two chunks
        version += 3
        workers.now += 100.0
    metrics = collector.metrics()
    assert metrics["workers/refused_steps"] == 0
    assert metrics["lag/max"] <= 6
    assert metrics["limiter/collectors_wait"] > 10
    assert metrics["limiter/learner_waits"] <= 20


def test_its_counts_are_a_part_of_a_checkpoint():
    workers = Walkers(1, share=0.3)
    supervisor, collector = free_collector(workers, 2, max_lag=3, updates=2)
    for version in range(0, 40, 2):
        collector.set_weights(version, 0)
        collector.collect(STEPS)
    saved = collector.snapshot()
    others = Walkers(2, share=0.0)
    again, other = free_collector(others, 2, max_lag=3, updates=2)
    assert other.restore(saved)
    lags = ("lag/mean", "lag/max")
    assert other.metrics() == {name: value for name, value in collector.metrics().items() if name not in lags}
    assert other.pop_episodes() == collector.pop_episodes()
    assert again.lives == [life + 1 for life in supervisor.lives]
