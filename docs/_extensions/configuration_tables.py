"""Tables of every key of a configuration, made from the schema: names, types, bounds, defaults, meaning.

Writes ``reference/generated/configuration.txt``, which ``configuration.md`` includes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tesserl_configs import RunConfig

BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def type_text(schema: dict[str, Any]) -> str:
    """A short name of what a key may hold."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return " or ".join(dict.fromkeys(type_text(option) for option in schema[choice]))
    if "allOf" in schema:
        return " and ".join(type_text(part) for part in schema["allOf"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    kind = {"null": "nothing", "object": "mapping"}.get(str(schema.get("type")), str(schema.get("type", "any value")))
    if kind == "array":
        kind = f"list of {type_text(schema.get('items', {}))}"
    bounds = ", ".join(f"{sign} {schema[name]}" for name, sign in BOUNDS.items() if name in schema)
    return f"{kind} {bounds}".strip()


def default_text(name: str, field: dict[str, Any], required: list[str]) -> str:
    """The default as it would stand in YAML."""
    if name in required:
        return "required"
    return f"`{json.dumps(field['default'])}`" if "default" in field else ""


def table(schema: dict[str, Any]) -> list[str]:
    """Lines of the table of one block."""
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for name, field in schema.get("properties", {}).items():
        cells = [
            f"`{name}`",
            type_text(field),
            default_text(name, field, schema.get("required", [])),
            field.get("description", ""),
        ]
        lines.append("| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |")
    return lines


def document(schema: dict[str, Any]) -> str:
    """The whole page: the top level, then every block, in the order of the schema."""
    lines = ["## Top level", "", *table(schema), ""]
    for name, block in schema.get("$defs", {}).items():
        if "properties" not in block:
            continue
        summary = block.get("description", "").split("\n\n", 1)[0]
        lines += [f"## {name}", "", " ".join(summary.split()), "", *table(block), ""]
    return "\n".join(lines)


def generate(app: Any) -> None:
    """Write the page."""
    target = Path(app.srcdir) / "reference" / "generated"
    target.mkdir(parents=True, exist_ok=True)
    text = document(RunConfig.model_json_schema())
    path = target / "configuration.txt"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", generate)
    return {"parallel_read_safe": True}
