"""Settings of a process that computes."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from tesserl_nn_components import ImpalaCNN
from tesserl_collectors.process import keep_freed_memory, prepare_process

torch.set_num_threads(1)
if sys.argv[1] == "keep":
    prepare_process(1)
    assert keep_freed_memory()
network = ImpalaCNN((4, 84, 84))
pictures = torch.randint(256, (32, 4, 84, 84), dtype=torch.uint8)

def faults(updates):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(updates):
        network(pictures).mean().backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(4)
print(faults(4))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone has these settings")
def test_freed_memory_is_used_again():
    def faults(mode: str) -> int:
        return int(subprocess.run([sys.executable, "-c", SCRIPT, mode], capture_output=True, check=True).stdout)

    # a busy kernel may reclaim pages in between, or join them, so one comparison may be off
    assert any(faults("keep") < faults("default") / 4 for _ in range(3))
