"""Importing the package brings in no environment library, no schema, and no torch until a name is used."""

import subprocess
import sys

PROGRAM = """
import importlib.machinery, importlib.util, sys, warnings
warnings.simplefilter("ignore")  # torchrl 0.14.1 warns of its own deprecated names

hidden = {"gymnasium", "pydantic", "tesserl_configs", "tesserl_trainer"}
finders = sys.meta_path[:]

class Hide(importlib.machinery.PathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in hidden:
            return None
        return next((spec for finder in finders if (spec := finder.find_spec(name, path, target))), None)

sys.meta_path[:] = [Hide()]
import tesserl_pqn
assert "torch" not in sys.modules
assert all(hasattr(tesserl_pqn, name) for name in tesserl_pqn.__all__)
assert list(tesserl_pqn.__all__) == sorted(tesserl_pqn.__all__)
assert not hasattr(tesserl_pqn, "nonsense")
"""


def test_import_needs_neither_environments_nor_the_trainer_and_is_lazy():
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
