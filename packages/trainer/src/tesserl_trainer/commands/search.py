"""``tesserl search``."""

from collections.abc import Sequence
from pathlib import Path

import click

from tesserl_trainer.console import options


@click.command(name="search", help="Search for the values of keys that give the best return.")
@click.argument("file", metavar="SEARCH", type=options.PATH)
@click.option("--trials", type=options.COUNT, help="Total number of trials; replaces the file's.")
@click.option(
    "--jobs", "num_parallel", type=options.THREADS, help="Trials to train at once. Default: cores / num_threads."
)
@click.option(
    "--runs", "runs_dir", default="runs", show_default=True, type=options.PATH, help="Parent of the search's directory."
)
@click.option("--name", help="Name of the search and of its directory; replaces the file's.")
@click.option("--dry-run", is_flag=True, help="Check the file and every corner of the search space; train nothing.")
@options.launcher
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key for all trials; repeatable."
)
def command(
    file: Path,
    trials: int | None,
    num_parallel: int | None,
    runs_dir: Path,
    name: str | None,
    dry_run: bool,
    launcher: str,
    launcher_options: Sequence[str],
    overrides: Sequence[str],
) -> None:
    """Train; print the file with the best configuration."""
    from tesserl_configs.launchers import read_launcher
    from tesserl_configs.search import load_search
    from tesserl_trainer.sweep.launchers import check_launcher, default_parallel

    where = read_launcher(launcher, launcher_options)
    check_launcher(where)
    if num_parallel is None and launcher != "local":
        raise click.UsageError(
            f"--jobs: say how many trials train at a time, which does not follow from this machine with --launcher "
            f"{launcher}"
        )
    search = load_search(file, overrides, name=name, trials=trials)
    corners = list(search.corners())
    num_parallel = num_parallel or default_parallel([search.trial(corners[0], "corner")])
    if dry_run:
        number = f"{search.config.trials} trials in {runs_dir / search.name}, {num_parallel} at a time"
        click.echo(f"{number}: all {len(corners)} corners of the space are valid")
        return
    from tesserl_trainer.search.search import run_search

    click.echo(run_search(search, runs_dir, num_parallel=num_parallel, launcher=where))
