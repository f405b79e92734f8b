"""``tesserl eval``."""

from pathlib import Path

import click

from tesserl_trainer.cli import options


@click.command(name="eval", help="Play a trained policy and print its returns as JSON.")
@click.argument("run_dir", type=options.PATH)
@click.option("--episodes", type=options.COUNT, default=100, show_default=True, help="Number of episodes.")
@click.option(
    "--seed",
    type=options.TASK_SEED,
    help="First episode's seed; the others follow. Default: seeds unused in training.",
)
@options.checkpoint
@options.overrides
def command(run_dir: Path, episodes: int, seed: int | None, checkpoint: str, overrides: tuple[str, ...]) -> None:
    """Print the result of ``evaluate`` as JSON."""
    from tesserl_preference_data.whole_files import json_text
    from tesserl_trainer.commands.evaluate import evaluate

    result = evaluate(run_dir, episodes=episodes, seed=seed, checkpoint=checkpoint, overrides=overrides)
    click.echo(json_text(result))
