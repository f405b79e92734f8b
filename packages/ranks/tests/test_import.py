"""Using every name of the package brings in no torchrl, no environment, no schema, and of Tesserl the storage."""

import subprocess
import sys

import pytest

PROGRAM = """
import importlib.machinery, importlib.util, sys

finders = sys.meta_path[:]

class Hide(importlib.machinery.PathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {hidden}:
            return None
        return next((spec for finder in finders if (spec := finder.find_spec(name, path, target))), None)

sys.meta_path[:] = [Hide()]
assert all(importlib.util.find_spec(name) is None for name in {hidden})
import tesserl_ranks
assert "torch" not in sys.modules
assert all(hasattr(tesserl_ranks, name) for name in tesserl_ranks.__all__)
found = {{name.split(".")[0] for name in sys.modules}}
assert not found & {{"torchrl", "gymnasium", "pydantic", "yaml"}}, found
ours = {{name for name in found if name.startswith("tesserl")}}
assert ours == {{"tesserl_ranks", "tesserl_storage"}}, found
assert all(hasattr(tesserl_ranks, name) for name in tesserl_ranks.__all__)
assert list(tesserl_ranks.__all__) == sorted(tesserl_ranks.__all__)
"""


@pytest.mark.parametrize("hidden", [(), ("torchrl", "gymnasium", "pydantic")])
def test_import_needs_and_brings_neither_torchrl_nor_siblings(hidden):
    program = PROGRAM.format(hidden=hidden)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
