"""Tables of every key of a configuration, made from the schema: names, types, bounds, defaults, meaning.

Writes ``reference/tables/configuration.md``, which ``configuration.md`` includes, and ``network.md`` with the
blocks of ``nn:``, which ``networks.md`` includes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tesserl_configs.algorithms import BUILT_IN, installed
from tesserl_configs.explain import bounds_text, default_text
from tesserl_configs.schema import extended

REFERENCE = re.compile(r"'\$ref': '#/\$defs/(\w+)'")


class Tables:
    """The page for one schema.

    Args:
        root: the model of a whole file.
    """

    def __init__(self, root: type[BaseModel]) -> None:
        self.root = root
        self.schema = root.model_json_schema()
        self.definitions: dict[str, dict[str, Any]] = self.schema["$defs"]
        self.models = models(BaseModel)
        self.places: dict[str, list[str]] = {}
        self._find_places(self.schema, "")

    def _find_places(self, block: dict[str, Any], path: str) -> None:
        """Note under which keys each block may stand, in the order of the file."""
        for key, field in block.get("properties", {}).items():
            place = f"{path}.{key}".lstrip(".")
            for name in dict.fromkeys(REFERENCE.findall(str(field))):
                first = name not in self.places
                self.places.setdefault(name, []).append(place)
                if first:
                    self._find_places(self.definitions[name], place)

    def page(self) -> str:
        """The top level, then every block but those of the network."""
        lines = ["## Top level", "", *self.table(self.root, self.schema), ""]
        return "\n".join([*lines, *self.blocks(network=False)])

    def network(self) -> str:
        """Every block of the network."""
        return "\n".join(self.blocks(network=True))

    def blocks(self, *, network: bool) -> list[str]:
        """Lines of the blocks that stand inside of ``nn``, or of those that do not."""
        lines = []
        for name, places in self.places.items():
            block = self.definitions[name]
            if "properties" not in block or (places[0].partition(".")[0] == "nn") != network:
                continue
            summary = block.get("description", "").split("\n\n", 1)[0]
            lines += [f"(config-{name.lower()})=", f"## {self.title(name, places)}", "", " ".join(summary.split()), ""]
            lines += [*self.table(self.models[name], block), ""]
        return lines

    def title(self, name: str, places: list[str]) -> str:
        """Where the block stands, and its kind; its own name if it stands in many places."""
        place = f"`{places[0]}`" if len(places) == 1 else name
        return f"{place}, {self.kind(name)}" if self.kind(name) else place

    def kind(self, name: str) -> str:
        """The tags of a member of a union, such as ``kind: cnn``; empty for other blocks."""
        kind = self.definitions[name].get("properties", {}).get("kind", {})
        kinds = kind.get("enum", [kind["const"]] if "const" in kind else [])
        return f"kind {' or '.join(f'`{each}`' for each in kinds)}" if kinds else ""

    def table(self, model: type[BaseModel], block: dict[str, Any]) -> list[str]:
        """Lines of the table of one block."""
        keys = {key: field for key, field in block["properties"].items() if "const" not in field or key != "kind"}
        if not keys:
            return ["No keys of its own."]
        lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
        for key, field in keys.items():
            cells = [f"`{key}`", self.value(field), default(model, key), field.get("description", "")]
            lines.append("| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |")
        return lines

    def value(self, schema: dict[str, Any]) -> str:
        """A short name of what a key may hold."""
        if "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[1]
            label = self.kind(name) or "block" if len(self.places[name]) == 1 else name
            return f"[{label}](#config-{name.lower()})"
        for choice in ("anyOf", "oneOf"):
            if choice in schema:
                return " or ".join(dict.fromkeys(self.value(option) for option in schema[choice]))
        if "const" in schema or "enum" in schema:
            return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
        if "prefixItems" in schema:
            return f"list of {', '.join(self.value(item) for item in schema['prefixItems'])}"
        if schema.get("type") == "array":
            return f"list of {self.value(schema.get('items', {}))}"
        if schema.get("type") in ("integer", "number"):
            return f"{schema['type']}{bounds_text(schema)}"
        return {"null": "null", "object": "mapping"}.get(str(schema.get("type")), str(schema.get("type", "any value")))


def default(model: type[BaseModel], key: str) -> str:
    """The default of a key as it would stand in YAML."""
    text = default_text(model.model_fields[key])
    return text if text == "required" else f"`{text}`"


def models(base: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Every model by the name that it has in a JSON Schema."""
    found = {base.__name__: base}
    for model in base.__subclasses__():
        found |= models(model)
    return found


def generate(app: Any) -> None:
    """Write the pages."""
    target = Path(app.srcdir) / "reference" / "tables"
    target.mkdir(parents=True, exist_ok=True)
    tables = Tables(extended(*(each.name for each in installed() if each.name not in BUILT_IN)))
    for name, text in (("configuration", tables.page()), ("network", tables.network())):
        path = target / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", generate)
    return {"parallel_read_safe": True}
