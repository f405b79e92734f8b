"""The example of the README runs."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
def test_example_runs(block, capsys):
    exec(block, {})
    assert capsys.readouterr().out == "torch.Size([32, 10, 4]) 0.5\n"
