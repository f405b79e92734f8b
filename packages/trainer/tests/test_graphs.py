"""Steps that a GPU repeats by itself, recorded and repeated on the simulated device."""

from contextlib import ExitStack

import pytest
import torch

from tesserl_trainer.algorithms import builder_of
from tesserl_trainer.algorithms.run import Run
from tesserl_trainer.algorithms.task import Task
from tesserl_training import cuda_graph
from tesserl_training.progress import ProgressDisplay

from .simulated import SUPPORTED, WAIT, simulation
from .simulated_runs import Recorded, configuration

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="this release of torch has no back end written in Python")

GRAPHED = ["iqn", "iqn, priorities, noise, Munchausen", "btr", "ppo", "ppo, pixels", "pqn", "grpo", "grpo, KL"]


@pytest.mark.parametrize("case", GRAPHED)
def test_a_graph_learns_what_its_steps_learn_while_schedules_change(write_config, tmp_path, monkeypatch, case):
    config = configuration(write_config, case, graph=True)
    replayed = []
    replay = cuda_graph._RecordedStep.replay
    monkeypatch.setattr(
        cuda_graph._RecordedStep, "replay", lambda step, batch: replayed.append(1) or replay(step, batch)
    )
    graph = Recorded(config, tmp_path / "graph")
    assert len(replayed) > graph.updates / 4
    monkeypatch.setattr(cuda_graph, "WARMUP", 10**9)
    steps = Recorded(config, tmp_path / "steps")
    assert len(replayed) > 0
    for name, tensor in graph.networks.items():
        assert torch.equal(tensor, steps.networks[name]), name


@pytest.mark.parametrize("case", GRAPHED)
@pytest.mark.parametrize("reads_buffers", [True, False])
def test_a_step_is_the_same_operations_whatever_schedules_say(write_config, tmp_path, case, reads_buffers):
    config = configuration(write_config, case, graph=True)
    with simulation(log=True) as device, ExitStack() as stack:
        progress = stack.enter_context(ProgressDisplay(config.total_steps, 0, quiet=True))
        loop = builder_of(config.algorithm).build_loop(Task(config), Run(tmp_path, progress, stack))
        loop.journal.open_log()
        batches, update = [], loop.learner.update
        loop.learner.update = lambda batch, *rest, **more: batches.append(batch.clone()) or update(batch, *rest, **more)
        loop.run()
        if not reads_buffers and hasattr(type(loop.learner.loss), "reads_buffers"):
            loop.learner.loss.reads_buffers = False
        logs, waits = [], device.by_kind()[WAIT]
        for step in (0, 100):
            for schedule in loop.journal.schedules:
                schedule.apply(schedule.value(step))
            device.operations.clear()
            loop.learner._step(batches[-1].clone())
            logs.append(list(device.operations))
        assert device.by_kind()[WAIT] == waits
    numbers = [schedule for schedule in loop.journal.schedules if schedule.value(0) != schedule.value(100)]
    is_read = reads_buffers or all(schedule.name in ("epsilon", "learning_rate", "beta") for schedule in numbers)
    assert (logs[0] == logs[1]) == is_read
