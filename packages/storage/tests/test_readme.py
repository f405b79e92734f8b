"""The example of the README runs."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
def test_example_runs(block, capsys):
    exec(block, {})
    lines = capsys.readouterr().out.splitlines()
    assert lines == re.findall(r"# (continues .*|state\.json: .*)", block)
