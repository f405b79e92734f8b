"""A reference page per package with all that its ``__all__`` names: no public name can be missing."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

from sphinx.util.inspect import signature, stringify_signature

PAGE = """# {distribution}

{summary}

"""
ENTRY = """```{{eval-rst}}
.. auto{kind}:: {module}.{name}
```

"""


def generate(app: Any) -> None:
    """Write one Markdown page per package of ``packages/`` below ``reference/generated/``."""
    target = Path(app.srcdir) / "reference" / "generated"
    target.mkdir(parents=True, exist_ok=True)
    for folder in sorted((Path(app.srcdir).parent / "packages").iterdir()):
        if not (folder / "pyproject.toml").is_file():
            continue
        module_name = f"tesserl_{folder.name.replace('-', '_')}"
        module = importlib.import_module(module_name)
        page = PAGE.format(distribution=f"tesserl-{folder.name}", summary=inspect.getdoc(module))
        for name in module.__all__:
            if name.startswith("__"):
                continue
            page += ENTRY.format(kind=_kind(getattr(module, name)), module=module_name, name=name)
        _write(target / f"{folder.name}.md", page)


def constructor_signature(_app: Any, what: str, _name: str, value: Any, *_rest: Any) -> tuple[str, str] | None:
    """Show the arguments of ``__init__`` where a metaclass hides them (torchrl's loss modules)."""
    if what != "class" or "__call__" not in vars(type(value)) or type(value) is type:
        return None
    found = signature(value.__init__, bound_method=True)
    return stringify_signature(found, show_return_annotation=False, unqualified_typehints=True), ""


def _kind(value: Any) -> str:
    if inspect.isclass(value):
        return "exception" if issubclass(value, BaseException) else "class"
    return "function" if callable(value) else "data"


def _write(path: Path, text: str) -> None:
    """Leave an unchanged file alone, so that a second build is quick."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", generate)
    app.connect("autodoc-process-signature", constructor_signature)
    return {"parallel_read_safe": True}
