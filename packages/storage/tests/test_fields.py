"""Checked access to what was read: every wrong value is named with its place."""

import math

import pytest
import torch

from tesserl_storage import Fields, StorageError

VALUES = {
    "whole": 3, "real": 0.5, "nan": math.nan, "flag": True, "text": "x", "list": [1, 2], "texts": ["a"],
    "pairs": [[1.5, 2]], "nested": {"deep": {"a": 1}}, "tensor": torch.zeros(2, 3), "one": torch.tensor([[0.5]]),
}  # fmt: skip


@pytest.fixture
def fields():
    return Fields(VALUES, "state.json")


def test_right_values_come_back_as_they_are(fields):
    assert fields.integer("whole", least=3, most=3) == 3
    assert fields.number("real", least=0.5) == 0.5
    assert math.isnan(fields.number("nan"))
    assert fields.number("whole") == 3
    assert fields.flag("flag") is True
    assert fields.text("text") == "x"
    assert fields.items("list") == fields.integers("list") == [1, 2]
    assert fields.texts("texts") == ["a"]
    assert fields.pairs("pairs") == [(1.5, 2)]
    assert fields.fields("nested").fields("deep").integer("a") == 1
    assert fields.tensor("tensor", (2, None), torch.float32) is VALUES["tensor"]
    assert fields.scalar("one") is VALUES["one"]


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda f: f.take("gone"), "expected an entry 'gone', got whole, real, nan,"),
        (lambda f: f.integer("flag"), "flag: expected a whole number from 0 to 9223372036854775807, got True"),
        (lambda f: f.integer("whole", most=2), "whole: expected a whole number from 0 to 2, got 3"),
        (lambda f: f.number("flag"), "flag: expected a number, got True"),
        (lambda f: f.number("nan", least=0.0), "nan: expected a number of at least 0.0, got nan"),
        (lambda f: f.flag("whole"), "whole: expected true or false, got 3"),
        (lambda f: f.text("list"), "list: expected text, got a list of 2"),
        (lambda f: f.items("nested"), "nested: expected a list, got keys and values"),
        (lambda f: f.texts("list"), "list: expected a list of text"),
        (lambda f: f.integers("texts"), "texts: expected a list of whole numbers"),
        (lambda f: f.pairs("list"), "list: expected a list of pairs of numbers, got 1"),
        (lambda f: f.fields("nested").fields("deep").text("a"), "nested.deep.a: expected text, got 1"),
        (lambda f: f.fields("text"), "text: expected keys and values, got 'x'"),
        (lambda f: f.scalar("tensor"), r"tensor: expected a tensor of one number, got a tensor torch.float32 \[2, 3\]"),
        (lambda f: f.tensor("tensor", (3, None), torch.float32), r"tensor: expected a tensor torch.float32 \[3, any\]"),
        (lambda f: f.tensor("tensor", (2, 3), torch.int64), r"tensor: expected a tensor torch.int64 \[2, 3\]"),
        (lambda f: f.tensor("list", (2,), torch.int64), r"list: expected a tensor torch.int64 \[2\], got a list of 2"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(fields, read, message):
    with pytest.raises(StorageError, match=f"^state.json: {message}"):
        read(fields)
