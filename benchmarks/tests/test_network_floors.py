"""The floors of networks.py compute what the networks compute; run with ``pytest benchmarks/tests``."""

import ast
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import networks

CASES = [*networks.vision_cases(), *networks.fusion_cases()]


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(networks, "BATCH", 3)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_output_and_gradients_are_those_of_the_floor(case):
    assert networks.difference(case) <= 1e-6


def test_a_floor_that_is_off_by_one_part_in_a_hundred_thousand_is_noticed():
    def other(network):
        floor = CASES[0].floor(network)
        return lambda *tensors: floor(*tensors) * 1.00001

    assert networks.difference(replace(CASES[0], floor=other)) > 1e-6


def test_a_floor_that_leaves_a_parameter_out_is_noticed():
    def other(network):
        floor = CASES[0].floor(network)
        return lambda state, pixels: floor(
            {name: value.detach() for name, value in state.items()} | last(state), pixels
        )

    def last(state):
        return {name: value for name, value in state.items() if name.endswith("bias")}

    with pytest.raises(SystemExit, match=r"trains other parameters: \['conv.layers.0.weight'"):
        networks.difference(replace(CASES[0], floor=other))


def test_floors_import_neither_this_project_nor_torchrl_nor_tensordict():
    for path in (Path(networks.__file__).parent / "floors").glob("*.py"):
        nodes = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        names = {getattr(node, "module", None) or alias.name for node in nodes for alias in node.names}
        assert not [name for name in names if name.startswith(("tesserl", "torchrl", "tensordict"))], path
