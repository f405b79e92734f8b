"""``tesserl collect``."""

from pathlib import Path
from typing import Any

import click

from tesserl_trainer.console import options


@click.command(name="collect", help="Play a run's policy, or a random one, and store its episodes.")
@click.argument("source", metavar="RUN_DIR|CONFIG", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=options.PATH, required=True, help="The store; extended where there is one.")
@click.option("--episodes", type=options.COUNT, help="Number of episodes.")
@click.option("--steps", type=options.STEPS, help="Episodes until there are so many steps.")
@options.checkpoint
@click.option("--random", is_flag=True, help="Uniformly random actions; a configuration is enough.")
@click.option("--stochastic/--greedy", default=True, show_default=True, help="Act as in training, or take the best.")
@click.option(
    "--epsilon", type=options.Number(0, 1, max_open=True), default=0.0, help="Probability of a random action instead."
)
@click.option("--seed", type=options.SEED, help="Of starts and actions. Default: the configuration's.")
@click.option("--same-start", metavar="G", type=options.COUNT, default=1, help="Episodes of each start.")
@click.option("--starts", type=click.Choice(["seed", "state"]), default="seed", show_default=True, help="Given by.")
@click.option("--frames/--no-frames", default=False, show_default=True, help="Keep pictures, to be looked at.")
@options.overrides
def command(source: Path, **settings: Any) -> None:
    """Print the result of ``collect`` as JSON."""
    if (settings["episodes"] is None) == (settings["steps"] is None):
        raise click.UsageError("name either --episodes or --steps")
    from tesserl_storage.whole_files import json_text
    from tesserl_trainer.running.collect import collect

    click.echo(json_text(collect(source, **settings)))
