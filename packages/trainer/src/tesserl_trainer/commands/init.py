"""``tesserl init``."""

import sys
from collections.abc import Iterable
from pathlib import Path

import click

from tesserl_trainer.console import options


@click.command(name="init", help="Write a commented configuration with a network that fits a task.")
@click.option("--env", metavar="ID", help="The task: a Gymnasium id such as CartPole-v1, or module:Id.")
@click.option("--algorithm", metavar="NAME", help="The algorithm, such as ppo or iqn.")
@click.argument("file", type=options.FILE, required=False)
def command(env: str | None, algorithm: str | None, file: Path | None) -> None:
    """Write the file and print its path; on a terminal, ask for missing options."""
    if env is None:
        env = _asked("--env", "an id of Gymnasium, such as CartPole-v1, or module:Id")
    from tesserl_trainer.running.starting_file import StartingTask, write_starting_file

    place = Path() if file is None else file.parent
    task = StartingTask(env, (place, Path()))
    if algorithm is None:
        algorithm = _asked("--algorithm", f"one of {', '.join(task.algorithms)}", task.algorithms)
    file = file or Path(task.file_name(algorithm))
    write_starting_file(task, algorithm, file)
    click.echo(file)


def _asked(option: str, expected: str, choices: Iterable[str] = ()) -> str:
    """Ask for an option on a terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError(f"{option} is missing: expected {expected}; there is no terminal to ask on")
    kind = click.Choice(list(choices)) if choices else None
    answer: str = click.prompt(f"{option} ({expected})", type=kind, show_choices=False, err=True)
    return answer
