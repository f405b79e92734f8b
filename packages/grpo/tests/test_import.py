"""Importing the package brings in no environment library, no schema, and no other package of Tesserl."""

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
import tesserl_grpo
found = {{name.split(".")[0] for name in sys.modules}}
assert not found & {{"gymnasium", "pydantic", "yaml", "vllm", "transformers"}}, found
assert {{name for name in found if name.startswith("tesserl")}} == {{"tesserl_grpo", "tesserl_policy"}}, found
assert all(hasattr(tesserl_grpo, name) for name in tesserl_grpo.__all__)
assert list(tesserl_grpo.__all__) == sorted(tesserl_grpo.__all__)
"""


@pytest.mark.parametrize("hidden", [(), ("gymnasium", "pydantic", "tesserl_nn_components", "tesserl_actor_critic")])
def test_import_needs_and_brings_neither_environments_nor_siblings(hidden):
    program = PROGRAM.format(hidden=hidden)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
