"""Look up keys in the schema: the classes along a path, their keys, kinds and defaults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tesserl_configs.schema import RunConfig, config_class


def blocks_in(annotation: Any) -> tuple[type[BaseModel], ...]:
    """Return all block classes in a type, through unions, lists and metadata."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    return tuple(block for argument in get_args(annotation) for block in blocks_in(argument))


def kinds_of(block: type[BaseModel]) -> tuple[str, ...]:
    """Return the legal values of ``kind`` in a block; empty if it has no such key."""
    return get_args(block.model_fields["kind"].annotation) if "kind" in block.model_fields else ()


def candidates(path: list[str | int], data: Any, root: type[BaseModel] | None = None) -> tuple[type[BaseModel], ...]:
    """Return the block classes allowed at a path, that of the chosen kind first; empty if no block is allowed."""
    blocks: tuple[type[BaseModel], ...] = (root or config_class(data),)
    for key in path:
        blocks = _chosen_first(blocks, data)
        if isinstance(key, str):
            field = blocks[0].model_fields.get(key) if blocks else None
            blocks = () if field is None else blocks_in(field.annotation)
        data = entry_at([key], data)
    return _chosen_first(blocks, data)


def field_at(path: list[str | int], data: Any, root: type[BaseModel] | None = None) -> FieldInfo | None:
    """Return the field at a path, or of the list for a list entry; None if the schema has none."""
    keys = [index for index, part in enumerate(path) if isinstance(part, str)]
    if not keys:
        return None
    blocks = candidates(path[: keys[-1]], data, root)
    return blocks[0].model_fields.get(str(path[keys[-1]])) if blocks else None


def literals_in(annotation: Any) -> tuple[Any, ...]:
    """Return all literal values in a type, through unions, lists and metadata, but not inside blocks."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(value for argument in get_args(annotation) for value in literals_in(argument))


def _chosen_first(blocks: tuple[type[BaseModel], ...], data: Any) -> tuple[type[BaseModel], ...]:
    kind = data.get("kind") if isinstance(data, dict) else None
    return tuple(sorted(blocks, key=lambda block: kind not in kinds_of(block))) if kind is not None else blocks


def entry_at(path: list[str | int], data: Any) -> Any:
    """Return the value at a path of plain data; None if there is none."""
    for key in path:
        if isinstance(data, dict):
            data = data.get(key)
        elif isinstance(data, list) and isinstance(key, int) and key < len(data):
            data = data[key]
        else:
            return None
    return data


def default_at(path: str, data: Any = None) -> Any:
    """Return the default at a dotted path: a block, a tuple, a value; None if it is unknown."""
    block: Any = config_class(data)
    for key in path.split("."):
        fields = getattr(block if isinstance(block, type) else type(block), "model_fields", {})
        if key not in fields:
            return None
        if not isinstance(block, type):
            block = getattr(block, key)
        elif fields[key].is_required():
            block = next(iter(blocks_in(fields[key].annotation)), None)
        else:
            block = fields[key].get_default(call_default_factory=True, validated_data={})
    return None if isinstance(block, type) else block


def all_keys(root: type[BaseModel] = RunConfig, *, entries: bool = True) -> Iterator[tuple[str, str]]:
    """Yield (dotted path of the block, key) for every key of a schema, with or without those in list entries."""
    stack: list[tuple[str, type[BaseModel]]] = [("", root)]
    while stack:
        path, block = stack.pop()
        for key, field in block.model_fields.items():
            yield path, key
            if not entries and get_origin(field.annotation) in (list, tuple):
                continue
            stack.extend((f"{path}.{key}".lstrip("."), inner) for inner in blocks_in(field.annotation))


def blocks_with(name: str, root: type[BaseModel] = RunConfig) -> set[str]:
    """Return the paths of the blocks that have a key; blocks in lists only if there are no others."""
    single = {block for block, key in all_keys(root, entries=False) if key == name}
    return single or {block for block, key in all_keys(root) if key == name}
