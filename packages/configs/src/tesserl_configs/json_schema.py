"""JSON Schema of a run, for editors: completion, descriptions and red underlines while a file is written."""

from __future__ import annotations

from typing import Any, get_args

from tesserl_configs.schema import OWNERS, Algorithm, RunConfig


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) of a configuration; the rules between keys are not part of it."""
    schema = RunConfig.model_json_schema()
    for block in schema["$defs"].values():
        if "const" in block.get("properties", {}).get("kind", {}):
            block["required"] = sorted({"kind", *block.get("required", [])})  # the loader chooses by it
    schema["allOf"] = [
        _refused(schema, "algorithm", algorithm, [block for block, owners in OWNERS.items() if algorithm not in owners])
        for algorithm in get_args(Algorithm)
    ]
    environment = schema["$defs"]["EnvironmentConfig"]
    others = [kind for kind in environment["properties"]["vectorization"]["enum"] if kind != "atari"]
    environment["allOf"] = [_refused(environment, "vectorization", kind, ["atari"]) for kind in others]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Tesserl run"}


def _refused(schema: dict[str, Any], key: str, value: str, blocks: list[str]) -> dict[str, Any]:
    """The condition that some blocks may not stand beside one value of a key; a silent file has the key's default."""
    written = [key] if schema["properties"][key].get("default") != value else []
    condition = {"properties": {key: {"const": value}}, "required": written}
    return {"if": condition, "then": {"properties": dict.fromkeys(blocks, False)}}
