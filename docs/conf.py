"""Sphinx settings. Warnings are errors (``nox -s docs``), and nothing is fetched while building."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

project = "Tesserl"
author = "The Tesserl authors"
copyright = "2026, The Tesserl authors"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "configuration_tables",
    "package_reference",
    "topology_tables",
]
exclude_patterns = ["_build", "_extensions", "reference/tables"]  # the last are included in pages

html_theme = "furo"
html_title = "Tesserl"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3

default_role = "code"  # docstrings name functions in single backticks
autodoc_default_options = {"exclude-members": "model_config", "members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
