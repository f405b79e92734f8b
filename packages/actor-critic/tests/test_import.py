"""Importing the package brings in neither an environment library nor the schema's, even where they are installed."""

import subprocess
import sys

import pytest

PROGRAM = """
import importlib.machinery, importlib.util, sys, warnings
warnings.simplefilter("ignore")  # torchrl 0.14.1 warns of its own deprecated names

finders = sys.meta_path[:]

class Hide(importlib.machinery.PathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {hidden}:
            return None
        return next((spec for finder in finders if (spec := finder.find_spec(name, path, target))), None)

sys.meta_path[:] = [Hide()]
assert all(importlib.util.find_spec(name) is None for name in {hidden})
import tesserl_actor_critic
found = sorted({{name.split(".")[0] for name in sys.modules}} & {{"gymnasium", "pydantic", "tesserl_configs", "yaml"}})
assert not found, found
assert all(hasattr(tesserl_actor_critic, name) for name in tesserl_actor_critic.__all__)
assert list(tesserl_actor_critic.__all__) == sorted(tesserl_actor_critic.__all__)
"""


@pytest.mark.parametrize("hidden", [(), ("gymnasium", "pydantic", "tesserl_configs")])
def test_import_needs_and_brings_no_gymnasium_and_no_pydantic(hidden):
    program = PROGRAM.format(hidden=hidden)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
