"""``tesserl compare``."""

from pathlib import Path
from typing import Any

import click

from tesserl_trainer.console import options
from tesserl_training.metric_names import EVALUATION


@click.command(name="compare", help="Compare the runs of a sweep: intervals, tables and a picture.")
@click.argument("paths", metavar="RUNS...", nargs=-1, required=True, type=options.PATH)
@click.option("--by", default="variant", show_default=True, help="What is compared: variant, or a key of the configs.")
@click.option("--metric", default=EVALUATION, show_default=True, help="A name of metrics.csv.")
@click.option("--best/--final", default=True, help="Score the best weights (default) or the last ones.")
@click.option("--reference", metavar="NAME", help="The variant that the others are compared with. [the sweep's first]")
@click.option(
    "--normalize",
    multiple=True,
    metavar="none|reference|TASK=LOW:HIGH",
    help="How returns become scores. [reference where there are several tasks]",
)
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only this task; may be repeated.")
@click.option(
    "--with",
    "suite",
    metavar="SUITE",
    help="Put recorded runs and published returns beside these: classic, minatar, or a directory. Tasks are then "
    "environment ids.",
)
@click.option("--strict", is_flag=True, help="A run that is missing or not finished is an error.")
@click.option("--json", "json_path", type=options.FILE, help="Write all numbers to this file.")
@click.option("--png", "png_path", type=options.FILE, help="Draw them to this file.")
def command(paths: tuple[Path, ...], **settings: Any) -> None:
    """Print tables and sentences."""
    from tesserl_trainer.inspect.compare import compare

    compare(paths, **settings)
