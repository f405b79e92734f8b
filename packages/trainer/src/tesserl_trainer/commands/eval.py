"""``tesserl eval``."""

from pathlib import Path
from typing import Any

import click

from tesserl_trainer.console import options


@click.command(name="eval", help="Play a trained policy and print its returns as JSON.")
@click.argument("run_dir", type=options.PATH)
@click.option("--episodes", type=options.COUNT, default=100, show_default=True, help="Number of episodes.")
@options.evaluation_seed
@options.stochastic
@click.option(
    "--video",
    type=options.COUNT,
    is_flag=False,
    flag_value=1,
    default=None,
    help="Film the first episode, or this many, as MP4 files in RUN_DIR/videos.",
)
@options.checkpoint
@options.overrides
def command(run_dir: Path, video: int | None, overrides: tuple[str, ...], **options: Any) -> None:
    """Print the result of ``evaluate`` as JSON."""
    from tesserl_storage.whole_files import json_text
    from tesserl_trainer.running.evaluate import evaluate

    result = evaluate(run_dir, video=video or 0, overrides=overrides, **options)
    click.echo(json_text(result))
