"""``tesserl doctor``."""

from dataclasses import asdict
from pathlib import Path

import click

from tesserl_trainer.console import options

COLORS = {"ok": "green", "missing": "yellow"}


@click.command(name="doctor", help="Show what is installed, what is missing, and how to install it.")
@click.argument("config_path", metavar="[CONFIG]", type=options.PATH, required=False)
@options.overrides
@options.as_json
@click.pass_context
def command(context: click.Context, config_path: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print all checks, a run of CONFIG on this machine among them; exit code 1 if one is broken."""
    if overrides and config_path is None:
        raise click.UsageError("--set: name the CONFIG that it overrides")
    from tesserl_storage.whole_files import json_text
    from tesserl_trainer.inspect.doctor import examine, examine_config

    checks = examine()
    if config_path is not None:
        checks.append(examine_config(config_path, overrides))
    healthy = all(check.status != "broken" for check in checks)
    if as_json:
        click.echo(json_text({"healthy": healthy, "checks": [asdict(check) for check in checks]}))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            click.secho(f"{check.status:8}", fg=COLORS.get(check.status, "red"), nl=False)
            click.echo(f"{check.name:{width}}  " + check.detail.replace("\n", "\n" + " " * (width + 10)))
            if check.remedy:
                click.echo(f"{'':8}{'':{width}}  mend it with: {check.remedy}")
    context.exit(0 if healthy else 1)
