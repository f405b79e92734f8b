"""JSON Schema of a run, for editors: completion, descriptions and red underlines while a file is written."""

from __future__ import annotations

from typing import Any

from tesserl_configs.schema import RunConfig


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) of a configuration; the rules between keys are not part of it."""
    schema = RunConfig.model_json_schema()
    for block in schema["$defs"].values():
        if "const" in block.get("properties", {}).get("kind", {}):
            block["required"] = sorted({"kind", *block.get("required", [])})  # the loader chooses by it
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Tesserl run"}
