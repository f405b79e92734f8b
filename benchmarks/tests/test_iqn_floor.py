"""The floors of iqn_update.py compute what the loss computes; run with ``pytest benchmarks/tests``."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import iqn_update
from floors.iqn import fusable_pairwise_loss, pairwise_loss


@pytest.mark.parametrize("hidden_sizes", [[], [8]])
def test_the_loss_of_iqn_is_that_of_its_floor(hidden_sizes):
    iqn_update.check_same(*iqn_update.iqn_sides(hidden_sizes))


def test_the_loss_of_qr_dqn_is_that_of_its_floor(monkeypatch):
    monkeypatch.setattr(iqn_update, "BATCH", 3)
    iqn_update.check_same(*iqn_update.qr_sides(compiled=False))


def test_a_floor_that_is_off_is_noticed():
    ours, floor = iqn_update.iqn_sides([])
    loss = floor.loss
    floor.loss = lambda *args, **data: loss(*args, **data) * 1.00001
    with pytest.raises(SystemExit, match="the floor is no floor"):
        iqn_update.check_same(ours, floor)


def test_the_form_for_a_compiler_is_the_same_loss():
    predicted, taus, targets = torch.randn(3, 5) * 2, torch.rand(3, 5), torch.randn(3, 7) * 2
    torch.testing.assert_close(fusable_pairwise_loss(predicted, taus, targets), pairwise_loss(predicted, taus, targets))
