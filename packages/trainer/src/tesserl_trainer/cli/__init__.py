"""The ``tesserl`` command. Its commands are imported when they are run: ``tesserl --help`` does not wait for torch."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

import click
from click.shell_completion import CompletionItem

from tesserl_trainer.__about__ import __version__
from tesserl_trainer.console.messages import OK, color, report
from tesserl_trainer.signals import StopNow, end_with_parent, stopped_in_order
from tesserl_trainer.usage import ArgumentError

TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that ``torchrun`` sets for each process."""


COMMANDS = {
    "init": "Write a commented configuration with a network that fits a task.",
    "train": "Train from a YAML file, or continue a run with --resume.",
    "sweep": "Train all combinations of seeds, variants and tasks of one file.",
    "search": "Search for the values of keys that give the best return.",
    "compare": "Compare the variants of a sweep: intervals, tables and a plot.",
    "eval": "Play a trained policy and print its returns as JSON.",
    "watch": "Watch a trained policy play in a window or in the terminal.",
    "report": "Write one HTML page about a run: curves, results, film.",
    "push": "Upload a run to the Hugging Face hub.",
    "pull": "Download a run from the Hugging Face hub.",
    "export": "Export a trained policy to one checked ONNX or pt2 file.",
    "pretrain": "Train a policy by imitation; another run can start from it.",
    "collect": "Play and store episodes of a run's policy or of random actions.",
    "pairs": "Make, inspect and label preference pairs of episode segments.",
    "config": "Validate, show, explain, compare and import configurations.",
    "observe": "Play random actions and draw the observations of the network.",
    "topologies": "Print all configurable networks, with their sizes and tokens.",
    "doctor": "Show what is installed, what is missing, and how to install it.",
}
"""Name of each command, and of its module in `tesserl_trainer.commands` -> its line of help."""


class LazyGroup(click.Group):
    """A group that reads names and help from the table, and imports only the command that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is click's
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command; return None if no command has that name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"tesserl_trainer.commands.{cmd_name}").command
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands and options that begin with ``incomplete``, without importing a command."""
        named = [CompletionItem(name, help=text) for name, text in COMMANDS.items()]
        return [item for item in named if item.value.startswith(incomplete)] + click.Command.shell_complete(
            self, ctx, incomplete
        )

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands' help without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    help="Train deep-RL agents from one YAML file.",
    epilog="Exit codes: 0 success, 1 failure, 2 wrong usage or configuration, 128 + N stopped by signal N "
    "(Ctrl-C: 130). Results go to stdout, messages to stderr.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="tesserl", message="%(prog)s %(version)s")
@click.pass_context
def tesserl(context: click.Context, debug: bool) -> None:
    """Store the options that apply to all commands; refuse ``torchrun`` for commands without ranks."""
    context.color = color()
    context.ensure_object(dict)["debug"] = debug
    command, number = context.invoked_subcommand, os.environ.get("WORLD_SIZE", "1")
    if command != "train" and number != "1" and all(name in os.environ for name in TORCHRUN):
        raise ArgumentError(f"{command}: expected one process, got {number}; start it without torchrun")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments; by default those of the process.

    Returns:
        The exit code: 0 success, 1 failure, 2 wrong usage or configuration; 130, 143 or 129 if SIGINT, SIGTERM or
        SIGHUP stopped it.
    """
    options: dict[str, bool] = {}
    try:
        with stopped_in_order():
            end_with_parent()
            result = tesserl.main(
                list(sys.argv[1:] if argv is None else argv), "tesserl", standalone_mode=False, obj=options
            )
    except (click.Abort, KeyboardInterrupt, StopNow) as error:
        if isinstance(error.__cause__, EOFError):  # the command raised it; click mistakes it for the end of the input
            return report(error.__cause__, debug=options.get("debug", False))
        stop = error if isinstance(error, StopNow) else StopNow(signal.SIGINT)
        click.echo(str(stop), err=True)
        return stop.exit_code
    except Exception as error:  # noqa: BLE001 - the outermost handler: every error becomes an exit code
        _drop_unwritten_output()
        return report(error, debug=options.get("debug", False))
    return result if isinstance(result, int) else OK


def _drop_unwritten_output() -> None:
    """Drop output that a full disk rejects; else Python would retry it at exit, fail, and exit with 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
