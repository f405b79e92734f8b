"""``tesserl train``."""

from pathlib import Path

import click

from tesserl_analysis import run_files
from tesserl_trainer.console import options


@click.command(name="train", help="Train from a YAML file, or continue a run with --resume.")
@click.argument("config_path", metavar="[CONFIG]", type=options.PATH, required=False)
@click.option("--run-dir", type=options.PATH, help="Directory of the new run. Default: runs/<name>.")
@click.option(
    "--resume", type=options.PATH, metavar="RUN_DIR", help="Continue this run, or one of its checkpoints, exactly."
)
@options.overrides
def command(config_path: Path | None, run_dir: Path | None, resume: Path | None, overrides: tuple[str, ...]) -> None:
    """Train; print the run's directory."""
    if (config_path is None) == (resume is None):
        raise click.UsageError("name either a CONFIG to train or, with --resume, a run to continue")
    if resume is not None and run_dir is not None:
        raise click.UsageError("--run-dir: a resumed run stays where it is")
    from tesserl_configs.loader import load_with_places
    from tesserl_ranks.joining import launched
    from tesserl_trainer.machine import refuse_missing
    from tesserl_trainer.running.train import resume_run, train
    from tesserl_training.checkpoints.names import step_of

    if resume is None:
        loaded = load_with_places(str(config_path), overrides)
        refuse_missing(loaded.config, placed=loaded.placed)
        trained = train(loaded.config, run_dir=run_dir)
    elif (resume / run_files.MANIFEST).exists():  # a checkpoint of a run: run/checkpoints/step_*
        resume = resume if step_of(resume.name) is not None else resume.resolve()  # such as . in a shell
        trained = resume_run(resume.parent.parent, overrides, checkpoint=resume.name)
    else:
        trained = resume_run(resume, overrides)
    launch = launched()
    if launch is None or launch.rank == 0:
        click.echo(trained)
