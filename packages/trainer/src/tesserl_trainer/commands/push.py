"""``tesserl push``."""

from pathlib import Path

import click

from tesserl_trainer.console import options


@click.command(name="push", help="Upload a run to the Hugging Face hub.")
@click.argument("run_dir", type=options.PATH)
@click.argument("repo", metavar="OWNER/NAME")
@click.option("--public", is_flag=True, help="If the repository is new, make it public.")
def command(run_dir: Path, repo: str, public: bool) -> None:
    """Upload; print the address."""
    from tesserl_trainer.export.hub import push

    click.echo(push(run_dir, repo, public=public))
