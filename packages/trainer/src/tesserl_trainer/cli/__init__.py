"""The ``tesserl`` command. Its commands are imported when they are run: ``tesserl --help`` does not wait for torch."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from tesserl_trainer.__about__ import __version__
from tesserl_trainer.console.messages import OK, color, report
from tesserl_trainer.signals import StopNow, end_with_parent, stopped_in_order
from tesserl_trainer.usage import ArgumentError

TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that ``torchrun`` sets for each process."""


class LazyGroup(click.Group):
    """A group that knows the names and the help of its commands, and imports the one that is run."""

    def __init__(self, *args: Any, table: dict[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is click's
        """Names in the order of the table."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command; return None if no command has that name."""
        if cmd_name not in self.table:
            return None
        module, _, attribute = self.table[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands and options that begin like this, without importing a command."""
        named = [CompletionItem(name, help=text) for name, (_, text) in self.table.items()]
        return [item for item in named if item.value.startswith(incomplete)] + click.Command.shell_complete(
            self, ctx, incomplete
        )

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands' help without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.table.items()])


@click.group(
    cls=LazyGroup,
    table={
        "init": (
            "tesserl_trainer.commands.init:command",
            "Write a commented file whose network fits a task.",
        ),
        "train": (
            "tesserl_trainer.commands.train:command",
            "Train from a YAML file, or continue a run with --resume.",
        ),
        "sweep": (
            "tesserl_trainer.commands.sweep:command",
            "Train seeds x variants x tasks from one file.",
        ),
        "search": (
            "tesserl_trainer.commands.search:command",
            "Search the values of keys that give the best return.",
        ),
        "compare": (
            "tesserl_trainer.commands.compare:command",
            "Compare the runs of a sweep: intervals, tables and a picture.",
        ),
        "eval": (
            "tesserl_trainer.commands.evaluate:command",
            "Play a trained policy and print its returns as JSON.",
        ),
        "watch": (
            "tesserl_trainer.commands.watch:command",
            "Watch a trained policy in a window, or in the terminal.",
        ),
        "report": (
            "tesserl_trainer.commands.report:command",
            "Write a run as one HTML page: curves, results, film.",
        ),
        "push": (
            "tesserl_trainer.commands.push:command",
            "Upload a run to the Hugging Face hub.",
        ),
        "pull": (
            "tesserl_trainer.commands.pull:command",
            "Download a run from the Hugging Face hub.",
        ),
        "export": (
            "tesserl_trainer.commands.export:command",
            "Write a trained policy as one checked file: ONNX or pt2.",
        ),
        "pretrain": (
            "tesserl_trainer.commands.pretrain:command",
            "Clone what others did, for another run to start from.",
        ),
        "collect": (
            "tesserl_trainer.commands.collect:command",
            "Play a run's policy, or a random one, and store its episodes.",
        ),
        "pairs": (
            "tesserl_trainer.commands.pairs:command",
            "Make, look at and label pairs of segments.",
        ),
        "config": (
            "tesserl_trainer.commands.config:command",
            "Validate, show, explain, compare and import configurations.",
        ),
        "observe": (
            "tesserl_trainer.commands.observe:command",
            "Draw what the network will be fed by random actions.",
        ),
        "topologies": (
            "tesserl_trainer.commands.topologies:command",
            "Print every network that can be built, with sizes and tokens.",
        ),
        "doctor": (
            "tesserl_trainer.commands.doctor:command",
            "Show versions, what is missing, and the command that mends it.",
        ),
    },
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    help="Train deep-RL agents from one YAML file.",
    epilog="Exit codes: 0 fine, 1 failure, 2 wrong usage or configuration, 130 stopped (128 + the signal's number). "
    "Results go to stdout, messages to stderr.",
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
        The exit code: 0 fine, 1 failure, 2 wrong usage or configuration; 130, 143 or 129 if SIGINT, SIGTERM or SIGHUP
        stopped it.
    """
    options: dict[str, bool] = {}
    try:
        with stopped_in_order():
            end_with_parent()
            result = tesserl.main(
                list(sys.argv[1:] if argv is None else argv), "tesserl", standalone_mode=False, obj=options
            )
    except (click.Abort, KeyboardInterrupt, StopNow) as error:
        if isinstance(error.__cause__, EOFError):  # of the command itself: click takes it for an end of the input
            return report(error.__cause__, debug=options.get("debug", False))
        stop = error if isinstance(error, StopNow) else StopNow(signal.SIGINT)
        click.echo(str(stop), err=True)
        return stop.exit_code
    except Exception as error:  # noqa: BLE001 - the outermost place: every error becomes an exit code
        _drop_unwritten_output()
        return report(error, debug=options.get("debug", False))
    return result if isinstance(result, int) else OK


def _drop_unwritten_output() -> None:
    """Drop output that a full disk does not take; Python would write it again at its end, fail, and exit with 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
