"""The example of the README runs, and its metric table names what there is."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
def test_example_runs(block):
    scope = {}
    exec(block, scope)
    assert scope["losses"]["loss_objective"].shape == ()
    for name in {*scope["losses"].keys(), *scope["scored"].metrics}:
        assert f"`{name}`" in README or name.startswith("loss_"), name
