"""``tesserl sweep``."""

from collections.abc import Sequence
from pathlib import Path

import click

from tesserl_trainer.console import options


@click.command(name="sweep", help="Train all combinations of seeds, variants and tasks of one file.")
@click.argument("file", metavar="SWEEP", type=options.PATH)
@click.option(
    "--jobs", "num_parallel", type=options.THREADS, help="Runs to train at once. Default: cores / num_threads."
)
@click.option(
    "--runs", "runs_dir", default="runs", show_default=True, type=options.PATH, help="Parent of the sweep's directory."
)
@click.option("--name", help="Name of the sweep and of its directory; replaces the file's.")
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only this task; may be repeated.")
@click.option("--variant", "variants", multiple=True, metavar="NAME", help="Only this variant; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Check every run and print its state; train nothing.")
@options.launcher
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of every run; repeatable.")
def command(
    file: Path,
    num_parallel: int | None,
    runs_dir: Path,
    name: str | None,
    tasks: Sequence[str],
    variants: Sequence[str],
    dry_run: bool,
    launcher: str,
    launcher_options: Sequence[str],
    overrides: Sequence[str],
) -> None:
    """Train; print the sweep's directory."""
    from tesserl_configs.launchers import read_launcher
    from tesserl_configs.sweep import load_sweep
    from tesserl_trainer.sweep.launchers import check_launcher, jobs_at_a_time
    from tesserl_trainer.sweep.sweep import plan_sweep, run_sweep

    where = read_launcher(launcher, launcher_options)
    check_launcher(where)
    loaded = load_sweep(file, overrides, name=name, tasks=tasks, variants=variants)
    if not dry_run:
        click.echo(run_sweep(loaded, runs_dir, num_parallel=num_parallel, launcher=where))
        return
    limit = jobs_at_a_time(where, num_parallel, [run.config for run in loaded.runs]) or num_parallel
    together = f"{limit} at a time" if limit else f"as many at a time as {launcher} has room for"
    states = plan_sweep(loaded, runs_dir)
    for run, state in zip(loaded.runs, states, strict=True):
        click.echo(f"{run.path}: {state}, {run.config.total_steps:,} steps")
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("finished", "started", "new"))
    directory = runs_dir / loaded.name
    click.echo(f"{len(loaded.runs)} runs in {directory}, {together}: {counts}", err=True)
