"""Options that several commands have."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tesserl_configs.limits import MOST_AT_ONCE, MOST_SEED, MOST_STEPS, MOST_TASK_SEED, MOST_THREADS, MOST_WIDTH

COUNT = click.IntRange(1, MOST_AT_ONCE)
STEPS = click.IntRange(1, MOST_STEPS)
SEED = click.IntRange(0, MOST_SEED)
TASK_SEED = click.IntRange(0, MOST_TASK_SEED)
THREADS = click.IntRange(1, MOST_THREADS)
WIDTH = click.IntRange(1, MOST_WIDTH)


class Number(click.FloatRange):
    """A finite number in a range; click's own range lets NaN pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or fail."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not a number.", param, ctx)
        return number


PATH = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)

overrides = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key; may be repeated."
)


def launcher(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select the launcher of the runs."""
    kind = click.option(
        "--launcher",
        default="local",
        show_default=True,
        type=click.Choice(["local", "ray", "slurm"]),
        help="Train on this machine, on a Ray cluster, or as Slurm jobs.",
    )
    keys = click.option(
        "--launcher-option",
        "launcher_options",
        multiple=True,
        metavar="KEY=VALUE",
        help="Set an option of the launcher, such as partition=gpu; may be repeated.",
    )
    return kind(keys(function))


checkpoint = click.option(
    "--checkpoint", default="best", show_default=True, help="Checkpoint: best, latest, or step_*."
)
evaluation_seed = click.option(
    "--seed", type=TASK_SEED, help="Seed of the first episode; each next one adds 1. Default: seeds unused in training."
)
stochastic = click.option("--stochastic", is_flag=True, help="Explore as in training at the checkpoint's step.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
