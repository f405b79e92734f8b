"""``tesserl observe``."""

from pathlib import Path

import click

from tesserl_trainer.console import options

SAMPLES = 32
"""Transitions in a picture, at most: two rows each."""


@click.command(name="observe", help="Play random actions and draw the observations that the network gets.")
@click.argument("config_path", metavar="CONFIG", type=options.PATH)
@click.option("--out", required=True, type=options.FILE, help="The picture, a PNG.")
@click.option("--steps", default=64, show_default=True, type=options.COUNT, help="Of each environment.")
@click.option("--samples", default=4, show_default=True, type=click.IntRange(1, SAMPLES), help="Transitions to draw.")
@options.overrides
def command(config_path: Path, out: Path, steps: int, samples: int, overrides: tuple[str, ...]) -> None:
    """Print a line for each key; write the picture."""
    from tesserl_configs import load_config
    from tesserl_trainer.usage import check_places

    check_places({"--out": out})
    config = load_config(config_path, overrides)
    from tesserl_trainer.inspect.observe import draw, observe, table

    drawn, transitions = observe(config, steps=steps, samples=samples)
    draw(drawn, out, num_frames=config.environment.stacked_frames)
    click.echo(table(transitions))
