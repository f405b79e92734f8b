"""Weights on their way to workers: by memory that is shared, and by vectors that are sent."""

import multiprocessing
from contextlib import closing

import numpy as np
import pytest
import torch
from torch import nn

from tesserl_collectors import SentWeights, SharedWeights
from tesserl_collectors.shared_memory import Inbox, Outbox
from tesserl_collectors.weights import flatten

CONTEXT = multiprocessing.get_context("spawn")


def make_network(seed):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    network.register_buffer("empty", torch.zeros(0))
    network.register_buffer("count", torch.tensor(seed))
    return network


def equal(left, right):
    return all(torch.equal(value, right.state_dict()[name]) for name, value in left.state_dict().items())


def test_shared_weights_arrive_and_two_versions_can_be_read():
    learner, worker = make_network(1), make_network(2)
    weights = SharedWeights(learner.state_dict(), CONTEXT, copies=2)
    weights.publish(learner.state_dict(), 7)
    weights.load(worker.state_dict(), 7)
    assert equal(learner, worker)
    other = make_network(3)
    assert weights.has_room([7])
    weights.publish(other.state_dict(), 8)
    assert not weights.has_room([7])
    for version, network in ((7, learner), (8, other)):
        weights.load(worker.state_dict(), version)
        assert equal(network, worker)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in weights.copied().items())
    with pytest.raises(RuntimeError, match=r"weights: expected version 9, got \[8, 7\]|\[7, 8\]"):
        weights.load(worker.state_dict(), 9)
    with pytest.raises(RuntimeError, match="weights: expected the tensors"):
        weights.load({"weight": torch.zeros(1)}, 8)


def test_sent_weights_arrive():
    learner, worker, received = make_network(1), make_network(2), SentWeights()
    received.put(flatten(learner.state_dict()), 3)
    received.load(worker.state_dict(), 3)
    assert equal(learner, worker)
    with pytest.raises(RuntimeError, match="weights: expected version 4, got 3"):
        received.load(worker.state_dict(), 4)
    with pytest.raises(RuntimeError, match="weights: expected vectors of"):
        received.load({"weight": torch.zeros(1)}, 3)


def test_answers_grow_and_keep_their_arrays():
    inbox = None
    with closing(Outbox()) as outbox:
        for size in (3, 100_000, 5):
            content = {
                "arrays": {"a": np.arange(size), "b": np.full((2, size), 0.5, np.float32)},
                "episodes": [[1.0, 2]],
            }
            sizes, descriptor = outbox.put(content)
            inbox = Inbox(descriptor) if descriptor is not None else inbox
            again = inbox.get(sizes)
            assert again["episodes"] == [[1.0, 2]]
            assert all(np.array_equal(again["arrays"][name], array) for name, array in content["arrays"].items())
