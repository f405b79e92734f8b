"""The examples of the README run."""

import re
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_example_runs(capsys):
    for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL):
        exec(block, {})
        assert capsys.readouterr().out.splitlines() == re.findall(r"print\(.*\)  # (.*)", block)
