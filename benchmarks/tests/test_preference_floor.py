"""The floor of preference_update.py computes what the loss computes; run with ``pytest benchmarks/tests``."""

import ast
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import preference_update


@pytest.mark.parametrize("kind", ["ours", "torchrl"])
def test_losses_and_gradients_are_those_of_the_floor(kind):
    assert max(preference_update.differences(*preference_update.build_sides(kind, 256), 256)) <= 1e-6


@pytest.mark.parametrize("change", ["beta", "reference", "action"])
def test_a_floor_that_computes_something_else_is_noticed(change):
    ours, floor = preference_update.build_sides("ours", 256)
    if change == "beta":
        ours.loss.beta *= 1.00001
    elif change == "reference":
        floor.data["reference_log_prob"][1] -= 1e-3
    else:
        floor.data["action"][0, :, 7] = 0
    assert max(preference_update.differences(ours, floor, 256)) > 1e-6


def test_both_sides_see_every_pair_once_an_epoch():
    ours, floor = preference_update.build_sides("ours", 200)
    before = [parameter.detach().clone() for parameter in ours.parameters]
    for side in (ours, floor):
        torch.manual_seed(2)
        side()
    for own, other, start in zip(ours.parameters, floor.parameters, before, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)
        assert not torch.equal(own, start)


def test_the_floor_imports_neither_this_project_nor_torchrl_nor_tensordict():
    path = Path(preference_update.__file__).parent / "floors" / "preferences.py"
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {getattr(node, "module", None) or alias.name for node in nodes for alias in node.names}
    assert names == {"torch", "torch.nn.functional"}
