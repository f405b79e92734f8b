"""``tesserl pretrain``."""

from pathlib import Path
from typing import Any

import click

from tesserl_trainer.console import options


@click.group(name="pretrain", help="Clone what others did, for another run to start from.")
def command() -> None:
    """Has no options of its own."""


@command.command(help="Behaviour cloning: make the actions in stored pairs or episodes likely.")
@click.argument("config_path", metavar="CONFIG", type=options.PATH)
@click.option("--pairs", type=options.PATH, help="Directory of stored pairs.")
@click.option("--trajectories", type=options.PATH, help="Directory of stored episodes.")
@click.option("--data", type=click.Choice(["chosen", "all"]), default="all", show_default=True, help="Side of pairs.")
@click.option("--updates", type=options.STEPS, default=2_000, show_default=True, help="Gradient updates.")
@click.option("--batch-size", type=options.COUNT, help="Pairs (64) or steps of episodes (256) in each.")
@click.option("--run-dir", type=options.PATH, help="Where the run goes. Default: runs/<name>-bc.")
@options.overrides
def bc(config_path: Path, pairs: Path | None, trajectories: Path | None, **settings: Any) -> None:
    """Print the run's directory."""
    if (pairs is None) == (trajectories is None):
        raise click.UsageError("name either --pairs or --trajectories")
    from tesserl_trainer.running.pretrain import pretrain_bc

    click.echo(pretrain_bc(config_path, pairs=pairs, trajectories=trajectories, **settings))
