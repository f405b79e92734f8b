"""``tesserl config``: validate, show, explain, compare and import configurations.

Each command imports the schema when it runs, so that shell completion stays fast. Only two commands import torch:
``show --shapes``, and ``validate`` of a file whose device is a GPU. Only ``show --shapes`` imports code that a file
names: the task.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from tesserl_configs import ConfigError
from tesserl_storage.whole_files import json_text
from tesserl_trainer.console import options

INCOMPLETE = 3
"""Exit code of an import that leaves out keys that matter."""


@click.group(name="config", help="Validate, show, explain, compare and import configurations.")
def command() -> None:
    """Group the subcommands."""


@command.command(
    help="Check files and list all their errors; the exit code is 2 if there are any. Packages, devices and files that "
    "a run needs but this machine lacks are warnings."
)
@click.argument("files", nargs=-1, required=True, type=options.PATH)
@options.overrides
@options.as_json
@click.pass_context
def validate(context: click.Context, files: tuple[Path, ...], overrides: tuple[str, ...], as_json: bool) -> None:
    """Check every file; continue after a file with errors."""
    checked = [_checked(file, overrides) for file in files]
    if as_json:
        click.echo(json_text(checked))
    for report in [] if as_json else checked:
        for message in report["errors"]:
            click.echo(message, err=True)
        for message in report["warnings"]:
            click.echo(f"warning: {message} (`tesserl train` would refuse it on this machine)", err=True)
        click.echo(f"{report['file']}: {'valid' if report['valid'] else _count(report['errors'])}")
    context.exit(0 if all(report["valid"] for report in checked) else 2)


def _checked(file: Path, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Return the errors of a file, and warnings about requirements that this machine lacks."""
    from tesserl_configs.loader import load_with_places
    from tesserl_trainer.machine import missing_here

    try:
        loaded = load_with_places(file, overrides)
    except ConfigError as error:
        return {"file": str(file), "valid": False, "errors": list(error.messages), "warnings": []}
    warnings = [loaded.placed(problem) for problem in missing_here(loaded.config)]
    return {"file": str(file), "valid": True, "errors": [], "warnings": warnings}


@command.command(help="Print a configuration with all defaults filled in.")
@click.argument("file", type=options.PATH)
@click.option(
    "--shapes",
    is_flag=True,
    help="Print the network layer by layer instead. This runs the code of the task, but no code of a Hugging Face "
    "model.",
)
@options.overrides
@options.as_json
def show(file: Path, shapes: bool, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print YAML that loads to the same configuration, or the layers of its network; or print either as JSON."""
    from tesserl_configs import dump_config, load_config
    from tesserl_configs.loader import as_data

    config = load_config(file, overrides)
    if shapes:
        from tesserl_trainer.inspect.shapes import network_layers, text

        layers = network_layers(config)
        click.echo(json_text([asdict(layer) for layer in layers]) if as_json else text(layers))
        return
    click.echo(json_text(as_data(config)) if as_json else dump_config(config), nl=as_json)


def _keys(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Return the dotted paths of the schema that begin with ``incomplete``, one level at a time."""
    from tesserl_configs.document import join
    from tesserl_configs.introspection import all_keys

    above = incomplete.rpartition(".")[0]
    return sorted(
        {join(block, key) for block, key in all_keys() if block == above and join(block, key).startswith(incomplete)}
    )


@command.command(
    help="Explain a key: its meaning, type, range, default and source, and the algorithms and kinds that have it. For "
    "a block, list its keys; without KEY, list the top-level keys. Example: ppo.clip_epsilon."
)
@click.argument("key", default="", shell_complete=_keys)
@options.as_json
def explain(key: str, as_json: bool) -> None:
    """Print one paragraph for each form of the key."""
    from tesserl_configs.explain import explain as explain_key

    found = explain_key(key)
    click.echo(json_text([asdict(each) for each in found]) if as_json else "\n\n".join(map(str, found)))


@command.command(help="Print the JSON Schema of configurations, for editors.")
@click.option("--sweep", "of", flag_value="sweep", help="Print the schema of sweep files instead.")
@click.option("--search", "of", flag_value="search", help="Print the schema of search files instead.")
def schema(of: str | None) -> None:
    """Print the schema."""
    from tesserl_configs.json_schema import json_schema, search_json_schema, sweep_json_schema

    schemas = {"sweep": sweep_json_schema, "search": search_json_schema}
    click.echo(json_text(schemas.get(str(of), json_schema)()))


@command.command(help="Print the keys whose values differ between two files, defaults included; --set changes RIGHT.")
@click.argument("left", type=options.PATH)
@click.argument("right", type=options.PATH)
@options.overrides
@options.as_json
def diff(left: Path, right: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print one line for each difference."""
    from tesserl_configs import load_config
    from tesserl_configs.diff import diff_configs

    differences = diff_configs(load_config(left), load_config(right, overrides))
    if as_json:
        click.echo(json_text([difference._asdict() for difference in differences]))
        return
    for path, before, after in differences:
        click.echo(f"{path}: {_shown(before)} -> {_shown(after)}")


@command.command(
    name="import",
    help="Convert a configuration of the racing-game project that the networks come from.",
    epilog="Exit codes: 0 every key that matters was converted; 3 some were not (the last line names them), or the "
    "result does not load yet; 2 the file is not a configuration of that project.",
)
@click.argument("file", type=options.PATH)
@click.option("--environment", "environment_id", default="ENVIRONMENT", help="Gymnasium id to write as environment.id.")
@click.pass_context
def import_(context: click.Context, file: Path, environment_id: str) -> None:
    """Print YAML to stdout, and a note about every key to stderr."""
    from tesserl_configs.importer import import_config

    imported = import_config(file, environment_id=environment_id)
    click.echo(imported.text, nl=False)
    for note in imported.notes:
        click.echo(str(note), err=True)
    if imported.lost:
        click.echo(f"not carried over: {', '.join(imported.lost)}", err=True)
    context.exit(INCOMPLETE if imported.lost or not imported.loads else 0)


def _count(found: list[str]) -> str:
    return f"{len(found)} error{'s' if len(found) > 1 else ''}"


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
