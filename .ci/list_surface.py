"""List all names in the user interface: keys of the schema, commands with options, public names of every package.

    python .ci/list_surface.py                                          the listing of the installed packages
    python .ci/list_surface.py --record FILE                            write it
    python .ci/list_surface.py --against .ci/records/0.1/surface.txt    what disappeared (-) and appeared (+) since

One fact a line, sorted: ``cli`` lines are commands and options, ``key`` and ``sweep`` lines are keys of the two
schemas with type and default, without their ranges; ``name`` lines are the names in ``__all__`` and the arguments of
each. Run it where all packages are installed.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner
from pydantic import BaseModel

from tesserl_configs import RunConfig
from tesserl_trainer.cli import tesserl

PREFIX = "tesserl-"


# --- commands --------------------------------------------------------------------------------------------------------


def commands(command: click.Command, path: str) -> Iterator[str]:
    """List a command, its options and arguments, then its subcommands."""
    yield f"cli {path}"
    for parameter in command.params:
        yield f"cli {path} {parameter_text(parameter)}"
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                yield from commands(inner, f"{path} {name}")


def parameter_text(parameter: click.Parameter) -> str:
    """Describe one option or argument: its spellings, type, default, and number of repetitions."""
    words = ["/".join([*parameter.opts, *parameter.secondary_opts])]
    if parameter.param_type_name == "argument":
        words = [f"<{parameter.human_readable_name}>"]
    words.append("flag" if getattr(parameter, "is_flag", False) else type_name(parameter.type))
    words += [word for word, holds in (("required", parameter.required), ("multiple", parameter.multiple)) if holds]
    if parameter.nargs != 1:
        words.append(f"nargs={parameter.nargs}")
    if isinstance(parameter.default, bool | int | float | str):
        words.append(f"default={parameter.default!r}")
    return " ".join(words)


def type_name(kind: click.ParamType[Any]) -> str:
    """Describe the values of an option."""
    if isinstance(kind, click.Choice):
        return "|".join(map(str, kind.choices))
    return kind.name.removesuffix(" range")


# --- schema ----------------------------------------------------------------------------------------------------------


class Keys:
    """The keys of one JSON Schema, by dotted path.

    Args:
        schema: JSON Schema of a whole file.
        label: first word of every line.
    """

    def __init__(self, schema: dict[str, Any], label: str) -> None:
        self.schema, self.label = schema, label
        self.definitions: dict[str, dict[str, Any]] = schema.get("$defs", {})
        self.models = models(BaseModel)

    def lines(self) -> Iterator[str]:
        """List all keys."""
        yield from self._block(self.schema, RunConfig if self.label == "key" else None, "")

    def _block(self, block: dict[str, Any], model: type[BaseModel] | None, path: str) -> Iterator[str]:
        for key, field in block.get("properties", {}).items():
            place = f"{path}.{key}".lstrip(".")
            if key == "kind" and "const" in field:
                continue  # it is in the path of the block's other keys
            default = default_text(model, key, field)
            required = " required" if key in block.get("required", []) and default == "" else ""
            yield f"{self.label} {place}: {self._type(field)}{required}{default}"
            for name in dict.fromkeys(references(field)):
                inner, kind = self.definitions[name], self._kind(name)
                where = f"{place}({kind})" if kind else place
                if kind:
                    yield f"{self.label} {where}"
                yield from self._block(inner, self.models.get(name), where)

    def _kind(self, name: str) -> str:
        return str(self.definitions[name].get("properties", {}).get("kind", {}).get("const", ""))

    def _type(self, field: dict[str, Any]) -> str:
        """Describe the values of a key; a block is described by its own keys."""
        if "$ref" in field:
            name = field["$ref"].rpartition("/")[2]
            return self._kind(name) or ("block" if "properties" in self.definitions[name] else self._type_of(name))
        for choice in ("anyOf", "oneOf"):
            if choice in field:
                return " | ".join(sorted({self._type(member) for member in field[choice]}))
        if "const" in field or "enum" in field:
            return " | ".join(json.dumps(value) for value in field.get("enum", [field.get("const")]))
        words = [str(field.get("type", "any"))]
        if "prefixItems" in field:
            words.append(f"of ({', '.join(self._type(item) for item in field['prefixItems'])})")
        elif "items" in field:
            words.append(f"of ({self._type(field['items'])})")
        return " ".join(words)

    def _type_of(self, name: str) -> str:
        return self._type(self.definitions[name])


def references(field: Any) -> Iterator[str]:
    """List the definitions that a key's schema names, in their order."""
    if isinstance(field, dict):
        if "$ref" in field:
            yield field["$ref"].rpartition("/")[2]
        for value in (value for key, value in field.items() if key != "discriminator"):
            yield from references(value)
    elif isinstance(field, list):
        for value in field:
            yield from references(value)


def default_text(model: type[BaseModel] | None, key: str, field: dict[str, Any]) -> str:
    """Describe a key's default as JSON; a block's default is its kind and what differs from that kind's defaults."""
    if model is None or key not in model.model_fields:
        return f" = {json.dumps(field['default'])}" if "default" in field else ""
    if model.model_fields[key].is_required():
        return ""
    value = model.model_fields[key].get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        kind = {"kind": value.kind} if hasattr(value, "kind") else {}
        value = {**kind, **value.model_dump(mode="json", exclude_defaults=True)}
    return f" = {json.dumps(value)}"


def models(base: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Return every loaded model by the name that it has in a JSON Schema."""
    found = {base.__name__: base}
    for model in base.__subclasses__():
        found |= models(model)
    return found


def schema(*options: str) -> dict[str, Any]:
    """Return what ``tesserl config schema`` prints."""
    result = CliRunner().invoke(tesserl, ["config", "schema", *options], catch_exceptions=False)
    printed: dict[str, Any] = json.loads(result.stdout)
    return printed


# --- names -----------------------------------------------------------------------------------------------------------


def names() -> Iterator[str]:
    """List the public names of every installed package of this repository, and their arguments."""
    found = sorted({entry.name.lower().replace("_", "-") for entry in distributions()})
    for package in (name.replace("-", "_") for name in found if name.startswith(PREFIX)):
        module = importlib.import_module(package)
        for name in module.__all__:
            yield f"name {package}.{name}"
            yield from (f"name {package}.{name}({argument})" for argument in arguments(getattr(module, name)))


def arguments(value: Any) -> Iterator[str]:
    """List the arguments of a function or class with their defaults; ``*`` marks those given by keyword alone."""
    if not callable(value) or (inspect.isclass(value) and issubclass(value, BaseModel | BaseException)):
        return
    shown = inspect.signature(value.__init__ if inspect.isclass(value) else value)
    for parameter in shown.parameters.values():
        if parameter.name in ("self", "args", "kwargs"):
            continue
        mark = "*" if parameter.kind is parameter.KEYWORD_ONLY else ""
        default = parameter.default
        text = getattr(default, "__name__", None) or repr(default)
        yield mark + parameter.name + ("" if default is parameter.empty else f"={text}")


# --- the whole -------------------------------------------------------------------------------------------------------


def listing() -> list[str]:
    """Return all lines, sorted."""
    lines = {*commands(tesserl, "tesserl"), *names()}
    lines.update(Keys(schema(), "key").lines())
    lines.update(Keys(schema("--sweep"), "sweep").lines())
    lines.update(Keys(schema("--search"), "search").lines())
    return sorted(lines)


def main() -> int:
    """Print the listing, write it, or print how it differs from a recorded one; return 1 if it differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the listing instead of printing it")
    parser.add_argument("--against", type=Path, metavar="FILE", help="print the difference to a recorded listing")
    options = parser.parse_args()
    lines = listing()
    if options.record is not None:
        options.record.parent.mkdir(parents=True, exist_ok=True)
        options.record.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return 0
    if options.against is None:
        print("\n".join(lines))
        return 0
    recorded = options.against.read_text(encoding="utf-8").splitlines()
    changed = sorted(set(lines) ^ set(recorded))
    for line in changed:
        print("-" if line in recorded else "+", line)
    print(f"{len(lines)} lines, {len(recorded)} recorded, {len(changed)} differ")
    return bool(changed)


if __name__ == "__main__":
    sys.exit(main())
