"""``tesserl pairs``: make, look at and label pairs of segments."""

from pathlib import Path
from typing import Any

import click

from tesserl_storage.whole_files import json_text
from tesserl_trainer.console import options

DRAWING = (
    click.option("--num", type=options.COUNT, help="Number of pairs to draw. Default: all possible pairs."),
    click.option(
        "--segment",
        metavar="KIND",
        default="episode",
        show_default=True,
        help="Segments to compare: episode, fixed:LENGTH or variable:LEAST:MOST, lengths in steps.",
    ),
    click.option("--same-start", is_flag=True, help="Only pair segments of episodes with the same start."),
    click.option("--seed", type=options.SEED, default=0, show_default=True, help="Seed of all random draws."),
    click.option("--download", is_flag=True, help="Download a Minari dataset if this machine lacks it."),
)


def drawing_options(command: Any) -> Any:
    """Add the options for drawing pairs, which ``make`` and ``label`` share."""
    for option in reversed(DRAWING):
        command = option(command)
    return command


@click.group(name="pairs", help="Make, inspect and label preference pairs of episode segments.")
def command() -> None:
    """Group the subcommands."""


@command.command(help="Draw pairs of segments from episodes and label them by score or by a scripted teacher.")
@click.argument("sources", metavar="TRAJECTORIES...", nargs=-1, required=True)
@click.option("--out", type=options.PATH, required=True, help="New directory for the pairs.")
@drawing_options
@click.option(
    "--by",
    default="return",
    show_default=True,
    help="Score of a segment: return, discounted:FACTOR, to_go[:FACTOR] (the return from its first step to the end of "
    "the episode), or regret:RUN (how much worse its actions are than the best ones, according to the policy of RUN).",
)
@click.option(
    "--min-margin", type=options.Number(0, 1e9), default=0.0, help="Least difference of the scores of a pair."
)
@click.option(
    "--ties", type=click.Choice(["drop", "keep"]), default="drop", show_default=True, help="Pairs of equal score."
)
@click.option(
    "--teacher",
    metavar="KIND",
    help="Scripted teacher that labels: oracle, noisy:BETA, myopic:DISCOUNT, skip:FRACTION, equal:FRACTION or "
    "mistake:PROBABILITY; the number is optional. Default: the larger score is preferred.",
)
@click.option("--unlabelled", is_flag=True, help="Write no labels; people add them with tesserl pairs label.")
@click.option(
    "--value-discount", type=options.Number(0, 1), help="Also store returns with this discount, to train a value."
)
def make(sources: tuple[str, ...], unlabelled: bool, **options: Any) -> None:
    """Print a summary of the new store as JSON."""
    from tesserl_trainer.pairs.making import make_store

    click.echo(json_text(make_store(sources, labelled=not unlabelled, **options)))


@command.command(help="Check every file and pair; print counts, lengths, margins, sources and agreement.")
@click.argument("path", metavar="PAIRS", type=options.PATH)
@options.as_json
def inspect(path: Path, as_json: bool) -> None:
    """Print a report; damage is an error that names the pairs it affects."""
    from tesserl_trainer.pairs.inspection import inspect_store, text

    report = inspect_store(path)
    click.echo(json_text(report) if as_json else text(report))


@command.command(help="Show pairs as clips in a local web page, and store which one a person prefers.")
@click.argument("path", metavar="PAIRS|TRAJECTORIES", type=options.PATH)
@click.option("--out", type=options.PATH, help="TRAJECTORIES: directory of the pairs. Default: TRAJECTORIES-pairs.")
@drawing_options
@click.option("--name", default="person", show_default=True, help="Name of the judge, stored with each label.")
@click.option("--question", default="Which one does better?", show_default=True, help="Question on the page.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of the page. Default: any free port.")
@click.option("--fps", type=options.Number(0.1, 1_000), default=20.0, show_default=True, help="Steps per second.")
@click.option("--open/--no-open", "open_page", default=True, show_default=True, help="Open the page in a browser.")
def label(path: Path, **options: Any) -> None:
    """Serve the page until Ctrl-C. Print its address first and the number of labels at the end."""
    from tesserl_trainer.pairs.labelling import label_store

    click.echo(json_text(label_store(path, **options)))
