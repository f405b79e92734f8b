"""The floor of ppo_update.py computes what PPOLoss computes."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import ppo_update


@pytest.mark.parametrize("metrics", [True, False])
def test_results_and_gradients_are_those_of_the_floor(metrics):
    ours, floor = ppo_update.build_sides(metrics=metrics)
    assert ppo_update.difference(ours, floor) <= 1e-6
    _, results = ppo_update.step(floor)
    assert "entropy" in results
    assert ("ESS" in results) == metrics


@pytest.mark.parametrize("name", ["old_log_probs", "advantage", "value_target"])
def test_a_floor_that_is_off_is_noticed(name):
    ours, floor = ppo_update.build_sides(metrics=False)
    floor.data = {**floor.data, name: floor.data[name] + 1e-3 * torch.randn(ppo_update.BATCH)}
    assert ppo_update.difference(ours, floor) > 1e-6


def test_torchrls_loss_has_the_same_constants():
    ours, floor = ppo_update.build_sides(metrics=True)
    torchrls = ppo_update.Torchrls(ours.loss._actor_critic, floor.data)
    assert ppo_update.difference(torchrls, floor) <= 1e-4  # torchrl's normalisation and logarithms round differently
