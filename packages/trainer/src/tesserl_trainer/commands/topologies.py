"""``tesserl topologies``."""

import click

from tesserl_configs.limits import MOST_PIXELS
from tesserl_trainer.console import options


@click.command(name="topologies", help="Print all configurable networks, with their sizes and tokens.")
@click.option("--image", default="1,64,64", show_default=True, help="Channels, height and width of the images.")
@click.option("--vector", type=options.WIDTH, default=16, show_default=True, help="Number of vector features.")
@click.option("--actions", type=options.WIDTH, default=6, show_default=True, help="Number of actions.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON: every network, with each combination of head streams."
)
def command(image: str, vector: int, actions: int, as_json: bool) -> None:
    """Print the table."""
    try:
        channels, height, width = (int(size) for size in image.split(","))
    except ValueError:
        raise click.UsageError(f"--image: expected channels,height,width such as 1,64,64, got {image}") from None
    if not all(1 <= size <= MOST_PIXELS for size in (channels, height, width)):
        raise click.UsageError(f"--image: expected sizes from 1 to {MOST_PIXELS}, got {image}")
    from tesserl_storage.whole_files import json_text
    from tesserl_trainer.inspect.topologies import describe, text

    report = describe((channels, height, width), vector, actions)
    click.echo(json_text(report) if as_json else text(report))
