"""Every test begins with the same generators and threads."""

import os

import pytest
import torch

THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))
"""CPU threads of torch: two in half of ``nox -s portability``."""


@pytest.fixture(autouse=True)
def _as_in_a_new_process():
    """No test depends on the ones before it."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
