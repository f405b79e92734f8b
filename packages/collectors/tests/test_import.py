"""Using every name of the package brings in no torchrl, no schema, no Ray, and of Tesserl two packages."""

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
import tesserl_collectors
assert "torch" not in sys.modules
assert all(hasattr(tesserl_collectors, name) for name in tesserl_collectors.__all__)
found = {{name.split(".")[0] for name in sys.modules}}
assert not found & {{"torchrl", "pydantic", "yaml", "ray", "PIL"}}, found
ours = {{name for name in found if name.startswith("tesserl")}}
assert ours == {{"tesserl_collectors", "tesserl_environments", "tesserl_storage"}}, found
assert all(hasattr(tesserl_collectors, name) for name in tesserl_collectors.__all__)
assert list(tesserl_collectors.__all__) == sorted(tesserl_collectors.__all__)
"""


@pytest.mark.parametrize("hidden", [(), ("torchrl", "pydantic", "ray", "tesserl_replay", "tesserl_policy")])
def test_import_needs_and_brings_neither_torchrl_nor_ray_nor_losses(hidden):
    program = PROGRAM.format(hidden=hidden)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
