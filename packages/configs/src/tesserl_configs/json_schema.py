"""JSON Schema of runs, sweeps and searches, for completion, descriptions and checks in editors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tesserl_configs.algorithms import SHARED, installed
from tesserl_configs.schema import complete_class
from tesserl_configs.search import SearchConfig
from tesserl_configs.sweep_file import SweepConfig

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a configuration, with the algorithms of all installed packages.

    The rules between keys are not part of it.
    """
    algorithms = installed()
    schema = complete_class().model_json_schema()
    for block in schema["$defs"].values():
        if "kind" in block.get("properties", {}):
            block["required"] = sorted({"kind", *block.get("required", [])})  # the loader chooses the block by it
    schema["allOf"] = [
        _refused(
            schema,
            "algorithm",
            algorithm.name,
            [
                *(other.name for other in algorithms if other is not algorithm),
                *(block for block in SHARED if block not in algorithm.blocks),
            ],
        )
        for algorithm in algorithms
    ]
    for union in list(_unions(schema)):
        _may_leave_its_kind_open(schema, union)
    environment = schema["$defs"]["EnvironmentConfig"]
    schema |= {
        "if": {"required": ["extends"]},
        "else": {
            "required": schema.pop("required"),
            "properties": {"environment": {"required": environment.pop("required")}},
        },
    }
    kinds = environment["properties"]["vectorization"]["enum"]
    others = [kind for kind in kinds if kind not in ("atari", "envpool")]
    environment["allOf"] = [_refused(environment, "vectorization", kind, ["atari"]) for kind in others]
    return {"$schema": DIALECT, **schema, "title": "Tesserl run"}


def sweep_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a sweep's file; the changes of tasks and variants are checked with the runs."""
    return {"$schema": DIALECT, **SweepConfig.model_json_schema(), "title": "Tesserl sweep"}


def search_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a search's file; its space is checked with the configurations in it."""
    return {"$schema": DIALECT, **SearchConfig.model_json_schema(), "title": "Tesserl search"}


def _unions(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every union that is discriminated by ``kind``."""
    if isinstance(schema, dict) and schema.get("discriminator", {}).get("propertyName") == "kind":
        yield schema
    for value in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from _unions(value)


def _may_leave_its_kind_open(schema: dict[str, Any], union: dict[str, Any]) -> None:
    """Add the form without ``kind``, which ``extends`` or ``btr`` may set; only the loader can check it."""
    members = [schema["$defs"][member["$ref"].rpartition("/")[2]] for member in union["oneOf"]]
    properties: dict[str, Any] = {key: {} for member in members for key in member["properties"] if key != "kind"}
    union["oneOf"].append(
        {
            "type": "object",
            "description": "Without kind: that of the file that extends names, or the one that btr chooses.",
            "not": {"required": ["kind"]},
            "properties": properties,
            "additionalProperties": False,
        }
    )


def _refused(schema: dict[str, Any], key: str, value: str, blocks: list[str]) -> dict[str, Any]:
    """Return the condition that forbids blocks if a key has a value, or has it by default."""
    written = [key] if schema["properties"][key].get("default") != value else []
    condition = {"properties": {key: {"const": value}}, "required": written}
    return {"if": condition, "then": {"properties": dict.fromkeys(blocks, False)}}
