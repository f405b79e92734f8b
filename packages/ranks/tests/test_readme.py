"""The example of the README runs, in one process and in two."""

import re
import subprocess
import sys
from pathlib import Path

from .together import PATIENCE, environment_of, free_ports

README = (Path(__file__).parents[1] / "README.md").read_text()
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def run(rank, number, port):
    environment = environment_of(rank, number, MASTER_PORT=str(port))
    return subprocess.Popen([sys.executable, "-c", EXAMPLE], env=environment, stdout=subprocess.PIPE, text=True)


def test_two_ranks_end_with_the_weights_of_one_process(capsys):
    exec(EXAMPLE, {})
    alone = capsys.readouterr().out
    assert alone.splitlines() == re.findall(r"print\(.*\)  # (.*)", EXAMPLE)
    (port,) = free_ports(1)
    processes = [run(rank, 2, port) for rank in range(2)]
    try:
        assert [process.communicate(timeout=PATIENCE)[0] for process in processes] == [alone] * 2
    finally:
        for process in processes:
            process.kill()
