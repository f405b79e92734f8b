"""Importing the package brings in no torch, no schema, and no other package of Tesserl."""

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
import tesserl_environments
found = {{name.split(".")[0] for name in sys.modules}}
assert not found & {{"torch", "tensordict", "torchrl", "pydantic", "yaml", "minatar", "ale_py", "Box2D"}}, found
assert {{name for name in found if name.startswith("tesserl")}} == {{"tesserl_environments"}}, found
assert all(hasattr(tesserl_environments, name) for name in tesserl_environments.__all__)
assert list(tesserl_environments.__all__) == sorted(tesserl_environments.__all__)
"""


@pytest.mark.parametrize("hidden", [(), ("torch", "tensordict", "pydantic", "ale_py", "minatar", "Box2D", "envpool")])
def test_import_needs_and_brings_neither_torch_nor_extras_nor_siblings(hidden):
    program = PROGRAM.format(hidden=hidden)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
