"""The floor of btr_update.py computes what the loss computes; run with ``pytest benchmarks/tests``."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import btr_update

TINY = {"pixels": (4, 12, 20), "width": 1, "hidden": 8}
CASE = btr_update.Case(batch_size=3)


@pytest.mark.parametrize("log_policy", ["online", "target"])
def test_loss_and_gradients_are_those_of_the_floor(log_policy):
    assert btr_update.difference(replace(CASE, log_policy=log_policy), **TINY) <= 1e-6


def test_channels_last_changes_neither_side():
    assert btr_update.difference(replace(CASE, channels_last=True), **TINY) <= 1e-5


def test_priorities_are_those_of_the_floor():
    ours, floor = btr_update.sides(CASE, **TINY)
    torch.manual_seed(0)
    ours()
    torch.manual_seed(0)
    td_error = floor.forward()[1]
    torch.testing.assert_close(ours.batch["td_error"], td_error)


@pytest.mark.parametrize("name", ["MUNCHAUSEN", "DISCOUNT"])
def test_a_floor_with_another_hyper_parameter_is_noticed(monkeypatch, name):
    original = btr_update.Floor.__call__
    other = {"MUNCHAUSEN": (0.9, 0.031, -1.0), "DISCOUNT": 0.99}[name]

    def call(self):
        with monkeypatch.context() as patch:
            patch.setattr(btr_update, name, other)
            return original(self)

    monkeypatch.setattr(btr_update.Floor, "__call__", call)
    assert btr_update.difference(CASE, **TINY) > 1e-6


def test_a_step_of_training_moves_both_sides_alike():
    ours, floor = btr_update.sides(CASE, **TINY)
    for side in (ours, floor):
        torch.manual_seed(0)
        train = btr_update.training(side)
        train()
        train()
    for name, parameter in floor.parameters.items():
        torch.testing.assert_close(ours.parameters[name], parameter, rtol=1e-4, atol=1e-6)
