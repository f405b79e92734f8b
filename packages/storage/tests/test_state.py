"""Nested state as JSON and tensors: what goes in comes out."""

import json
import math

import numpy as np
import pytest
import torch

from tesserl_storage import join_state, load_tensors, save_tensors, split_state
from tesserl_storage.state import tensor_names

from .strict_json import strict


def make_state() -> dict:
    shared = torch.arange(6.0).reshape(2, 3)
    return {
        "networks": {"a": shared, "b": shared, "c": shared.t(), "empty": torch.zeros(0), "flag": torch.tensor(True)},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0), "mean": torch.ones(2)}}, "groups": [{"lr": 1e-4}]},
        "environments": [{"start": {"seed": 2**70}}],
        "counters": {"step": 17, "exact": True, "none": None, "name": "x", "score": 0.1 + 0.2},
        "waiting": {"next/reward": torch.arange(4, dtype=torch.int64)},
    }


def assert_equal(left, right):
    if isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            assert_equal(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_equal(one, other)
    else:
        assert left == right
        assert type(left) is type(right)


def test_splitting_and_joining_are_inverse():
    state = make_state()
    document, tensors = split_state(state)
    assert_equal(state, join_state(json.loads(json.dumps(document)), tensors))


def test_tensors_survive_the_disk_and_one_with_two_names_is_stored_once(tmp_path):
    document, tensors = split_state(make_state())
    save_tensors(tmp_path / "tensors", tensors)
    loaded = load_tensors(tmp_path / "tensors")
    assert_equal(make_state(), join_state(json.loads(json.dumps(document)), loaded))
    assert sorted(tensor_names(document)) == sorted(loaded)
    assert loaded["networks.a"] is loaded["networks.b"]


def test_what_is_neither_a_tensor_nor_json_is_refused_with_its_place():
    with pytest.raises(TypeError, match=r"state counters\.3: expected tensors and JSON data, got set"):
        split_state({"counters": [0, 1, 2, {1, 2}]})


def test_numbers_of_a_state_survive_the_disk_though_they_are_not_finite():
    state = {"episodes": [[math.nan, 3], [-math.inf, 4]], "owed": math.inf, "x": np.float32("nan"), "y": 0.5}
    document, tensors = split_state(state)
    text = json.dumps(document, allow_nan=False)
    again = join_state(strict(text), tensors)
    assert math.isnan(again["episodes"][0][0])
    assert math.isnan(again["x"])
    assert (again["episodes"][1], again["owed"], again["y"]) == ([-math.inf, 4], math.inf, 0.5)
