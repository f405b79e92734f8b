"""``tesserl config``: validate, show, compare and import configurations. Only ``show --shapes`` imports torch."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from tesserl_configs import ConfigError, dump_config, load_config
from tesserl_configs.diff import diff_configs
from tesserl_configs.importer import import_config
from tesserl_configs.json_schema import json_schema, sweep_json_schema
from tesserl_configs.loader import as_data
from tesserl_trainer.cli import options
from tesserl_trainer.run.files import json_text


@click.group(name="config", help="Validate, show, compare and import configurations.")
def command() -> None:
    """Has no options of its own."""


@command.command(help="Check files; all their errors are listed. Exit code 2 if a file has one.")
@click.argument("files", nargs=-1, required=True, type=options.PATH)
@options.overrides
@options.as_json
@click.pass_context
def validate(context: click.Context, files: tuple[Path, ...], overrides: tuple[str, ...], as_json: bool) -> None:
    """Loads every file; a bad one does not keep the others from being checked."""
    errors: dict[str, list[str]] = {}
    for file in files:
        errors[str(file)] = []
        try:
            load_config(file, overrides)
        except ConfigError as error:
            errors[str(file)] = list(error.messages)
    if as_json:
        report = [{"file": name, "valid": not found, "errors": found} for name, found in errors.items()]
        click.echo(json_text(report))
    else:
        for name, found in errors.items():
            for message in found:
                click.echo(message, err=True)
            click.echo(f"{name}: {_count(found)}" if found else f"{name}: valid")
    context.exit(2 if any(errors.values()) else 0)


@command.command(help="Print a configuration with all defaults filled in.")
@click.argument("file", type=options.PATH)
@click.option("--shapes", is_flag=True, help="Print the network layer by layer instead; the task must be installed.")
@options.overrides
@options.as_json
def show(file: Path, shapes: bool, overrides: tuple[str, ...], as_json: bool) -> None:
    """Prints YAML that loads to the same configuration, or the layers of its network; either as JSON."""
    config = load_config(file, overrides)
    if shapes:
        from tesserl_trainer.commands.shapes import network_layers, text

        layers = network_layers(config)
        click.echo(json_text([asdict(layer) for layer in layers]) if as_json else text(layers))
        return
    click.echo(json_text(as_data(config)) if as_json else dump_config(config), nl=as_json)


@command.command(help="Print the JSON Schema of configurations, for editors.")
@click.option("--sweep", is_flag=True, help="That of sweeps instead.")
def schema(sweep: bool) -> None:
    """Prints the schema."""
    click.echo(json_text(sweep_json_schema() if sweep else json_schema()))


@command.command(help="Print the keys in which two files differ, defaults filled in; --set changes RIGHT.")
@click.argument("left", type=options.PATH)
@click.argument("right", type=options.PATH)
@options.overrides
@options.as_json
def diff(left: Path, right: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Prints one line for each difference."""
    differences = diff_configs(load_config(left), load_config(right, overrides))
    if as_json:
        click.echo(json_text([difference._asdict() for difference in differences]))
        return
    for path, before, after in differences:
        click.echo(f"{path}: {_shown(before)} -> {_shown(after)}")


@command.command(name="import", help="Turn a file of the racing-game project these networks come from into ours.")
@click.argument("file", type=options.PATH)
@click.option("--environment", "environment_id", default="ENVIRONMENT", help="Gymnasium id of the task to write.")
def import_(file: Path, environment_id: str) -> None:
    """Prints YAML to stdout and to stderr what became of every key."""
    imported = import_config(file, environment_id=environment_id)
    click.echo(imported.text, nl=False)
    for note in imported.notes:
        click.echo(str(note), err=True)


def _count(found: list[str]) -> str:
    return f"{len(found)} error{'s' if len(found) > 1 else ''}"


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
