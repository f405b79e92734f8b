"""The example of the README runs, and prints what its comments say."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
def test_example_runs(block, capsys):
    exec(block, {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("IQM 0.838, ")  # (0.70 + 0.75 + 0.80 + 0.90 + 0.93 + 0.95) / 6
    assert lines[1].startswith("better with probability 0.83 (")  # of 25 pairs each 22 and 19.5
    assert lines[2].startswith("ours is above theirs: ")
