import ast
import subprocess
import sys
from pathlib import Path

import tesserl_nn_components


def test_public_names_are_sorted_and_importable():
    assert tesserl_nn_components.__all__ == sorted(tesserl_nn_components.__all__)
    assert all(hasattr(tesserl_nn_components, name) for name in tesserl_nn_components.__all__)


def test_import_brings_no_torchrl_no_environment_no_configuration():
    forbidden = ["torchrl", "gymnasium", "pydantic", "yaml", "transformers", "huggingface_hub", "tensordict"]
    code = f"import sys, tesserl_nn_components; print([m for m in {forbidden} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_source_has_no_assert():
    for path in Path(tesserl_nn_components.__file__).parent.glob("*.py"):
        assert not any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(path.read_text()))), path
