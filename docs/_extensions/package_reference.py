"""A reference page per package with all that its ``__all__`` names, and the map of modules for ``architecture.md``.

Both are made from the packages, so that no public name and no module can be missing.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from sphinx.util.inspect import signature, stringify_signature

PAGE = """# {distribution}

{summary}

"""
ENTRY = """```{{eval-rst}}
.. {directive}:: {module}.{name}
{options}```

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
            value = getattr(module, name)
            home = getattr(value, "__module__", module_name).partition(".")[0]
            if home.startswith("tesserl_") and home != module_name:  # described once, where it is from
                owner = home.removeprefix("tesserl_").replace("_", "-")
                page += f"`{name}`: see [tesserl-{owner}]({owner}.md).\n\n"
                continue
            directive, options = _directive(value)
            page += ENTRY.format(directive=directive, options=options, module=module_name, name=name)
        _write(target / f"{folder.name}.md", page)
    _write(target.with_name("tables") / "modules.md", module_map(Path(app.srcdir).parent / "packages"))


def module_map(packages: Path) -> str:
    """A table per package: each module and the first line of its docstring."""
    lines: list[str] = []
    for source in sorted(packages.glob("*/src/*")):
        lines += [f"### {source.name}", "", "| module | what it holds |", "|---|---|"]
        for path in sorted(source.rglob("*.py")):
            name = ".".join(path.relative_to(source).with_suffix("").parts)
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            if "__" not in name and docstring:
                first = docstring.split("\n\n", 1)[0].replace("\n", " ").replace("|", "\\|")
                lines.append(f"| `{name}` | {first} |")
        lines.append("")
    return "\n".join(lines)


def class_signature(
    _app: Any, what: str, _name: str, value: Any, _options: Any, shown: str | None, _returns: str | None
) -> tuple[str, str] | None:
    """Show the arguments of ``__init__`` where ``__new__`` hides them; none for models, which have tables elsewhere."""
    if what == "class" and issubclass(value, BaseModel):
        return "", ""
    if what == "class" and shown == "(*args, **kwargs)":
        arguments = signature(value.__init__, bound_method=True)
        return stringify_signature(arguments, show_return_annotation=False, unqualified_typehints=True), ""
    return None


def _directive(value: Any) -> tuple[str, str]:
    """How to document a value: Sphinx directive and its options."""
    if inspect.isclass(value):
        return ("autoexception" if issubclass(value, BaseException) else "autoclass"), ""
    if callable(value):
        return "autofunction", ""
    return "py:data", f"   :value: {value!r}\n"


def _write(path: Path, text: str) -> None:
    """Leave an unchanged file alone, so that a second build is quick."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", generate)
    app.connect("autodoc-process-signature", class_signature)
    return {"parallel_read_safe": True}
