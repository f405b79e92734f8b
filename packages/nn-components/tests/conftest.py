import json
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def vectors():
    """Loads the reference numbers of one file in tests/vectors."""
    folder = Path(__file__).parent / "vectors"
    return lambda name: json.loads((folder / name).read_text())
