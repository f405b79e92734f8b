"""``tesserl observe``."""

from pathlib import Path

import click

from tesserl_trainer.console import options

SAMPLES = 32
"""Most transitions in a picture; each takes two rows."""


@click.command(name="observe", help="Play random actions and draw the observations of the network.")
@click.argument("config_path", metavar="CONFIG", type=options.PATH)
@click.option("--out", required=True, type=options.FILE, help="PNG file to write.")
@click.option("--steps", default=64, show_default=True, type=options.COUNT, help="Steps to play in each environment.")
@click.option(
    "--samples",
    default=4,
    show_default=True,
    type=click.IntRange(1, SAMPLES),
    help="Transitions to show, drawn from those played.",
)
@options.overrides
def command(config_path: Path, out: Path, steps: int, samples: int, overrides: tuple[str, ...]) -> None:
    """Write the picture; print one line per observation key."""
    from tesserl_configs import load_config
    from tesserl_trainer.usage import check_places

    check_places({"--out": out})
    config = load_config(config_path, overrides)
    from tesserl_trainer.inspect.observe import draw, observe, table

    drawn, transitions = observe(config, steps=steps, samples=samples)
    draw(drawn, out, num_frames=config.environment.stacked_frames)
    click.echo(table(transitions))
