"""``tesserl compare``."""

from pathlib import Path
from typing import Any

import click

from tesserl_trainer.console import options
from tesserl_training.metric_names import EVALUATION


@click.command(name="compare", help="Compare the variants of a sweep: intervals, tables and a plot.")
@click.argument("paths", metavar="RUNS...", nargs=-1, required=True, type=options.PATH)
@click.option("--by", default="variant", show_default=True, help="Group runs by variant, or by a configuration key.")
@click.option("--metric", default=EVALUATION, show_default=True, help="Metric to compare: a name in metrics.csv.")
@click.option("--best/--final", default=True, help="Score the best weights (default) or the last ones.")
@click.option("--reference", metavar="NAME", help="Compare the others with this variant. Default: the sweep's first.")
@click.option(
    "--normalize",
    multiple=True,
    metavar="none|reference|TASK=LOW:HIGH",
    help="Scale returns to scores; may be repeated. Default: none for one task, reference for several.",
)
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only this task; may be repeated.")
@click.option(
    "--with",
    "suite",
    metavar="SUITE",
    help="Also show recorded runs and published returns: classic, minatar, minatar-2m, atari, or a directory. Tasks "
    "are then named by environment id.",
)
@click.option("--strict", is_flag=True, help="Fail if a run is missing or not finished.")
@click.option("--json", "json_path", type=options.FILE, help="Write all numbers to this file.")
@click.option("--png", "png_path", type=options.FILE, help="Save the plot as this PNG file.")
def command(paths: tuple[Path, ...], **settings: Any) -> None:
    """Print tables and sentences."""
    from tesserl_trainer.inspect.compare import compare

    compare(paths, **settings)
