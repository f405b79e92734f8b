"""Runs whose second machine is lost while its workers collect: nodes of one cluster on this machine stand for machines.

A module of its own: it starts a cluster of several nodes, to which a run connects by its address.
"""

import shutil
import tempfile
from pathlib import Path

import pytest

from tesserl_configs import load_config
from tesserl_trainer import train
from tesserl_training.journal import Journal

ray = pytest.importorskip("ray", reason="needs tesserl-trainer[ray]")
pytestmark = [pytest.mark.ray, pytest.mark.soak]

from tesserl_collectors import ray_cluster  # noqa: E402

from .test_process_collectors import learned  # noqa: E402
from .test_ray_collectors import last_of, state_of, wait_until_gone, without_counts  # noqa: E402

CPUS = 4
"""Of each node: either has room for all workers, and Ray gives both of them some."""


@pytest.fixture
def cluster(monkeypatch):
    """A cluster whose first node is this machine; it has a directory of its own, which is removed."""
    from ray.cluster_utils import Cluster

    for name, value in ray_cluster.SETTINGS.items():
        monkeypatch.setenv(name, value)
    directory = Path(tempfile.mkdtemp(prefix="nodes-", dir=ray_cluster.SHORT))
    (directory / "ray").mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(directory))  # not the place where other clusters write their address
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": CPUS, "temp_dir": str(directory / "ray")})
    yield started
    started.shutdown()
    shutil.rmtree(directory)


def processes_below(parent):
    """Return the processes that a process has started, and those below them."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = {child for child, of in parents.items() if of == parent}
    return found.union(*map(processes_below, found))


@pytest.fixture
def lose_node(cluster, monkeypatch):
    """Kill the second node at the round that begins at a step or later; return the processes that it had."""
    node, lost = cluster.add_node(num_cpus=CPUS), []
    (raylet,) = (started.process.pid for started in node.all_processes["raylet"])
    begin_round = Journal.begin_round

    def losing(journal):
        if journal.step >= 60 and not lost:
            lost.append(processes_below(raylet) | {raylet})
            cluster.remove_node(node, allow_graceful=False)
        return begin_round(journal)

    monkeypatch.setattr(Journal, "begin_round", losing)
    return lost


def collectors(cluster, mode):
    block = f"kind: ray, workers: {CPUS}, mode: {mode}, address: '{cluster.address}'"
    return {"name: tiny": f"name: tiny\ncollectors: {{{block}}}", "num_envs: 3": f"num_envs: {CPUS}"}


def test_a_run_goes_on_without_the_workers_of_a_lost_node(cluster, lose_node, write_config, tmp_path):
    config = load_config(write_config(algorithm="iqn", **collectors(cluster, "async")))
    run_dir = train(config, run_dir=tmp_path / "run")
    state, (processes,) = state_of(run_dir), lose_node
    lost = [event["worker"] for event in state["events"]]
    assert 1 <= len(set(lost)) == len(lost) < CPUS  # those of the other node, once
    assert last_of(run_dir, "workers/restarts") == len(lost)
    assert state["counters"]["step"] >= 240
    assert not state["exact"]
    assert not ray.is_initialized()
    wait_until_gone(processes)


def test_groups_of_a_lost_node_are_played_again_to_the_same_bits(cluster, lose_node, write_config, tmp_path):
    config = load_config(write_config(algorithm="grpo", **collectors(cluster, "sync")))
    run_dir = train(config, run_dir=tmp_path / "run")
    assert state_of(run_dir)["exact"]
    assert 1 <= last_of(run_dir, "workers/restarts") < CPUS
    (processes,) = lose_node
    wait_until_gone(processes)
    whole = train(config, run_dir=tmp_path / "whole")  # the first node is left
    assert last_of(whole, "workers/restarts") == 0
    assert without_counts(learned(run_dir)) == without_counts(learned(whole))
