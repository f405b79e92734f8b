"""``tesserl collect``."""

from pathlib import Path
from typing import Any

import click

from tesserl_trainer.console import options


@click.command(name="collect", help="Play and store episodes of a run's policy or of random actions.")
@click.argument("source", metavar="RUN_DIR|CONFIG", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=options.PATH, required=True, help="Directory of the store; existing episodes are kept.")
@click.option("--episodes", type=options.COUNT, help="Number of episodes to play.")
@click.option("--steps", type=options.STEPS, help="Play whole episodes until they have this many steps.")
@options.checkpoint
@click.option("--random", is_flag=True, help="Take uniformly random actions; needs no run, a CONFIG is enough.")
@click.option(
    "--stochastic/--greedy", default=True, show_default=True, help="Act as in training, or take the best action."
)
@click.option(
    "--epsilon", type=options.Number(0, 1, max_open=True), default=0.0, help="Probability of a random action per step."
)
@click.option("--seed", type=options.SEED, help="Seed of starts and actions. Default: the configuration's.")
@click.option("--same-start", metavar="G", type=options.COUNT, default=1, help="Episodes from each start.")
@click.option(
    "--starts",
    type=click.Choice(["seed", "state"]),
    default="seed",
    show_default=True,
    help="Share a start by reset seed or task state.",
)
@click.option("--frames/--no-frames", default=False, show_default=True, help="Also store a picture of each step.")
@options.overrides
def command(source: Path, **settings: Any) -> None:
    """Print the result of ``collect`` as JSON."""
    if (settings["episodes"] is None) == (settings["steps"] is None):
        raise click.UsageError("name either --episodes or --steps")
    from tesserl_storage.whole_files import json_text
    from tesserl_trainer.running.collect import collect

    click.echo(json_text(collect(source, **settings)))
