"""``tesserl watch``."""

from pathlib import Path
from typing import Any

import click

from tesserl_trainer.console import options


@click.command(name="watch", help="Watch a trained policy play in a window or in the terminal.")
@click.argument("run_dir", type=options.PATH)
@click.option("--episodes", type=options.COUNT, default=3, show_default=True, help="Number of episodes.")
@click.option("--terminal", is_flag=True, help="Show the task as text; print only the returns if it renders no text.")
@options.evaluation_seed
@options.stochastic
@options.checkpoint
@options.overrides
def command(run_dir: Path, **settings: Any) -> None:
    """Play; print a line for each episode."""
    from tesserl_trainer.running.watch import watch

    watch(run_dir, show=click.echo, **settings)
