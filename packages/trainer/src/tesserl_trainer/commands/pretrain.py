"""``tesserl pretrain``."""

from pathlib import Path
from typing import Any

import click

from tesserl_trainer.console import options


@click.group(name="pretrain", help="Train a policy by imitation; another run can start from it.")
def command() -> None:
    """Group the subcommands."""


@command.command(help="Train by behaviour cloning: maximise the likelihood of the actions in stored pairs or episodes.")
@click.argument("config_path", metavar="CONFIG", type=options.PATH)
@click.option("--pairs", type=options.PATH, help="Directory of stored pairs.")
@click.option("--trajectories", type=options.PATH, help="Directory of stored episodes.")
@click.option(
    "--data", type=click.Choice(["chosen", "all"]), default="all", show_default=True, help="Segments to clone."
)
@click.option("--updates", type=options.STEPS, default=2_000, show_default=True, help="Number of updates.")
@click.option(
    "--batch-size", type=options.COUNT, help="Pairs (default: 64) or steps of episodes (default: 256) per update."
)
@click.option("--run-dir", type=options.PATH, help="Directory of the new run. Default: runs/<name>-bc.")
@options.overrides
def bc(config_path: Path, pairs: Path | None, trajectories: Path | None, **settings: Any) -> None:
    """Print the run's directory."""
    if (pairs is None) == (trajectories is None):
        raise click.UsageError("name either --pairs or --trajectories")
    from tesserl_trainer.running.pretrain import pretrain_bc

    click.echo(pretrain_bc(config_path, pairs=pairs, trajectories=trajectories, **settings))
