"""Using every name of the package brings in no configuration library and no trainer."""

import subprocess
import sys

PROGRAM = """
import sys

import tesserl_training
assert "torch" not in sys.modules
assert all(hasattr(tesserl_training, name) for name in tesserl_training.__all__)
found = {name.split(".")[0] for name in sys.modules}
assert not found & {"pydantic", "tesserl_configs", "tesserl_trainer"}, found
assert list(tesserl_training.__all__) == sorted(tesserl_training.__all__)
"""


def test_import_brings_neither_the_schema_nor_the_trainer():
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
