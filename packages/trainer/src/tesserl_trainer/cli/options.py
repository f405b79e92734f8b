"""Options that several commands have."""

from pathlib import Path

import click

PATH = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)

overrides = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key; may be repeated."
)
checkpoint = click.option("--checkpoint", default="best", show_default=True, help="best, latest, or step_*.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
