"""``tesserl pairs``: make, look at and label pairs of segments."""

from pathlib import Path
from typing import Any

import click

from tesserl_storage.whole_files import json_text
from tesserl_trainer.console import options

DRAWING = (
    click.option("--num", type=options.COUNT, help="Number of pairs. Default: all that there are."),
    click.option(
        "--segment",
        metavar="KIND",
        default="episode",
        show_default=True,
        help="What is compared: episode, fixed:LENGTH or variable:LEAST:MOST, lengths in steps.",
    ),
    click.option("--same-start", is_flag=True, help="Compare segments of episodes that began alike, no others."),
    click.option("--seed", type=options.SEED, default=0, show_default=True, help="Of all that is drawn."),
    click.option("--download", is_flag=True, help="Fetch a Minari dataset that is not on this machine."),
)


def drawing_options(command: Any) -> Any:
    """Add the options for drawing pairs, which ``make`` and ``label`` share."""
    for option in reversed(DRAWING):
        command = option(command)
    return command


@click.group(name="pairs", help="Make, look at and label pairs of segments.")
def command() -> None:
    """Has no options of its own."""


@command.command(help="Draw pairs of segments from episodes and label them by score or by a scripted teacher.")
@click.argument("sources", metavar="TRAJECTORIES...", nargs=-1, required=True)
@click.option("--out", type=options.PATH, required=True, help="Directory of the pairs; new.")
@drawing_options
@click.option(
    "--by",
    default="return",
    show_default=True,
    help="Score: return, discounted:FACTOR, to_go[:FACTOR] (of all that follows the first step), or regret:RUN (how "
    "much worse the actions are than the best, by the policy of a run).",
)
@click.option("--min-margin", type=options.Number(0, 1e9), default=0.0, help="Least difference of scores.")
@click.option("--ties", type=click.Choice(["drop", "keep"]), default="drop", show_default=True, help="Equal scores.")
@click.option(
    "--teacher",
    metavar="KIND",
    help="Who labels: oracle, noisy:BETA, myopic:DISCOUNT, skip:FRACTION, equal:FRACTION, mistake:PROBABILITY; the "
    "number may be left out. Default: the score.",
)
@click.option("--unlabelled", is_flag=True, help="Leave the labels to people: tesserl pairs label.")
@click.option("--value-discount", type=options.Number(0, 1), help="Keep returns with this discount, for a value.")
def make(sources: tuple[str, ...], unlabelled: bool, **options: Any) -> None:
    """Print a summary of the new store as JSON."""
    from tesserl_trainer.pairs.making import make_store

    click.echo(json_text(make_store(sources, labelled=not unlabelled, **options)))


@command.command(help="Print counts, lengths, margins, sources and agreement; check every file and pair.")
@click.argument("path", metavar="PAIRS", type=options.PATH)
@options.as_json
def inspect(path: Path, as_json: bool) -> None:
    """Print a report; damage is an error that names the pairs it affects."""
    from tesserl_trainer.pairs.inspection import inspect_store, text

    report = inspect_store(path)
    click.echo(json_text(report) if as_json else text(report))


@command.command(help="Show pairs as clips in a web page on this machine, and write down which is better.")
@click.argument("path", metavar="PAIRS|TRAJECTORIES", type=options.PATH)
@click.option(
    "--out", type=options.PATH, help="TRAJECTORIES: directory of the pairs. Default: beside, ending in -pairs."
)
@drawing_options
@click.option("--name", default="person", show_default=True, help="Who judges; written with each label.")
@click.option("--question", default="Which one does better?", show_default=True, help="What the page asks.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Default: one that is free.")
@click.option("--fps", type=options.Number(0.1, 1_000), default=20.0, show_default=True, help="Steps a second.")
@click.option("--open/--no-open", "open_page", default=True, show_default=True, help="Open the page in a browser.")
def label(path: Path, **options: Any) -> None:
    """Serve the page until Ctrl-C. Print its address first and the number of labels at the end."""
    from tesserl_trainer.pairs.labelling import label_store

    click.echo(json_text(label_store(path, **options)))
