"""``tesserl report``."""

from pathlib import Path

import click

from tesserl_trainer.console import options


@click.command(name="report", help="Write one HTML page about a run: curves, results, film.")
@click.argument("run_dir", type=options.PATH)
def command(run_dir: Path) -> None:
    """Write the page; print its path."""
    from tesserl_trainer.inspect.report import report

    click.echo(report(run_dir))
