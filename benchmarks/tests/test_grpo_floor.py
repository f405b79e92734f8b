"""The floor of grpo_update.py computes what the loss computes; run with ``pytest benchmarks/tests``."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import grpo_update


@pytest.mark.parametrize("kl_coef", [0.0, grpo_update.KL_COEF])
@pytest.mark.parametrize("metrics", [True, False])
@pytest.mark.parametrize("direct", [True, False])
def test_loss_gradients_and_metrics_are_those_of_the_floor(kl_coef, metrics, direct):
    ours, floor = grpo_update.build_sides(kl_coef=kl_coef, metrics=metrics, direct=direct)
    assert grpo_update.difference(ours, floor) <= 1e-6


def test_a_floor_that_leaves_a_term_out_is_noticed():
    ours, _ = grpo_update.build_sides(metrics=False, kl_coef=grpo_update.KL_COEF)
    _, floor = grpo_update.build_sides(metrics=False)
    assert grpo_update.difference(ours, floor) > 1e-6


def test_a_floor_that_is_off_by_one_part_in_a_hundred_thousand_is_noticed():
    ours, floor = grpo_update.build_sides(metrics=False)
    floor.data["advantages"] = floor.data["advantages"] * 1.00001
    assert grpo_update.difference(ours, floor) > 1e-6
