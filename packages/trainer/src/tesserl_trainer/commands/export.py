"""``tesserl export``."""

from pathlib import Path
from typing import Any

import click

from tesserl_trainer.console import options


@click.command(name="export", help="Export a trained policy to one checked ONNX or pt2 file.")
@click.argument("run_dir", type=options.PATH)
@click.option("--format", type=click.Choice(["onnx", "pt2"]), required=True, help="File format.")
@click.option("--taus", type=options.WIDTH, help="iqn: fix this number of midpoint taus. Default: taus are an input.")
@options.checkpoint
@click.option("--output", type=options.PATH, help="File to write. Default: policy.FORMAT in RUN_DIR.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@options.overrides
def command(run_dir: Path, **settings: Any) -> None:
    """Print the result of ``export`` as JSON."""
    from tesserl_storage.whole_files import json_text
    from tesserl_trainer.export.export import export

    click.echo(json_text(export(run_dir, **settings)))
