"""Importing the package brings in no other package of ours and no environment, even where they are installed."""

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
import tesserl_preference_opt
others = {{name.split(".")[0] for name in sys.modules if name.startswith("tesserl_")}}
others -= {{"tesserl_policy", "tesserl_preference_data", "tesserl_preference_opt"}}
found = sorted(others | ({{name.split(".")[0] for name in sys.modules}} & {{"gymnasium", "pydantic", "yaml"}}))
assert not found, found
assert all(hasattr(tesserl_preference_opt, name) for name in tesserl_preference_opt.__all__)
assert list(tesserl_preference_opt.__all__) == sorted(tesserl_preference_opt.__all__)
"""


@pytest.mark.parametrize("hidden", [(), ("gymnasium", "pydantic", "tesserl_nn_components", "tesserl_actor_critic")])
def test_import_needs_and_brings_nothing_of_the_kind(hidden):
    program = PROGRAM.format(hidden=hidden)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
