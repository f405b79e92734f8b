"""``tesserl pull``."""

from pathlib import Path

import click

from tesserl_trainer.console import options


@click.command(name="pull", help="Download a run from the Hugging Face hub.")
@click.argument("repo", metavar="OWNER/NAME")
@click.argument("run_dir", type=options.PATH, required=False)
@click.option("--revision", help="Branch, tag or commit.  [default: the main branch]")
@click.option("--trust-code", is_flag=True, help="Accept a run whose configuration names modules, or models with code.")
def command(repo: str, run_dir: Path | None, revision: str | None, trust_code: bool) -> None:
    """Download; print the run's directory, by default ``runs/NAME``."""
    from tesserl_trainer.export.hub import pull

    directory = Path("runs", repo.rpartition("/")[2]) if run_dir is None else run_dir
    click.echo(pull(repo, directory, revision=revision, trust_code=trust_code))
