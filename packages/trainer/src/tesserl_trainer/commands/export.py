"""``tesserl export``."""

from pathlib import Path
from typing import Any

import click

from tesserl_trainer.console import options


@click.command(name="export", help="Write a trained policy as one checked file: ONNX or pt2.")
@click.argument("run_dir", type=options.PATH)
@click.option("--format", type=click.Choice(["onnx", "pt2"]), required=True, help="Kind of file.")
@click.option("--taus", type=options.WIDTH, help="iqn: fix this many midpoints. Default: taus are an input.")
@options.checkpoint
@click.option("--output", type=options.PATH, help="The file. Default: policy.FORMAT in the run.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@options.overrides
def command(run_dir: Path, **settings: Any) -> None:
    """Print the result of ``export`` as JSON."""
    from tesserl_storage.whole_files import json_text
    from tesserl_trainer.export.export import export

    click.echo(json_text(export(run_dir, **settings)))
