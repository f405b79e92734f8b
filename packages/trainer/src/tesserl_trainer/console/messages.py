"""Report errors of all commands in one form: a message on standard error and an exit code."""

from __future__ import annotations

import errno
import os
import traceback

import click

OK, FAILURE, USAGE = 0, 1, 2
"""Exit codes. A command stopped by a signal exits with 128 + the signal's number.

USAGE: an argument or a configuration is wrong: an option is unknown, a value has a wrong form or is out of range, or a
named path or checkpoint does not exist, holds something else, or would be overwritten. Such errors have the attribute
``exit_code`` 2, or are `ConfigError`.
FAILURE: the command is valid but failed: a file is damaged, there are too few data, a package is missing, the disk is
full, or training diverged.
"""

REMEDIES = {
    errno.EACCES: "change its permissions, or name another place",
    errno.EDQUOT: "free room there, then repeat the command; a run continues with tesserl train --resume",
    errno.EFBIG: "raise the limit (ulimit -f), then repeat the command; a run continues with tesserl train --resume",
    errno.EISDIR: "name a file",
    errno.ENOENT: "check the path",
    errno.ENOSPC: "free room there, then repeat the command; a run continues with tesserl train --resume",
    errno.ENOTDIR: "a file stands where the path has a directory; name another path",
    errno.EROFS: "name a place that can be written to",
}
"""Remedies for errors of the operating system, by error number."""


def report(error: Exception, *, debug: bool) -> int:
    """Write an error to standard error, with a traceback if its type is unexpected; return the exit code."""
    from tesserl_configs import ConfigError

    if isinstance(error, click.ClickException):
        _explain_usage(error)
        return error.exit_code
    exit_code = USAGE if isinstance(error, ConfigError) else int(getattr(error, "exit_code", FAILURE))
    ours = type(error).__module__.startswith("tesserl_")
    foreseen = ours or isinstance(error, ValueError | OSError | ModuleNotFoundError)
    if debug or not foreseen:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
        return exit_code
    if exit_code > 128:  # a signal stopped it in order
        click.echo(str(error), err=True)
        return exit_code
    is_of_system = isinstance(error, OSError) and error.errno is not None
    complain(_of_system(error) if isinstance(error, OSError) and is_of_system else str(error) or type(error).__name__)
    if not (is_of_system or isinstance(error, ConfigError) or hasattr(error, "exit_code")):
        click.echo("(tesserl --debug ... shows where)", err=True)
    return exit_code


def complain(message: str) -> None:
    """Write a message that begins with ``error:`` to standard error."""
    click.secho("error: ", fg="red", err=True, nl=False, color=color())
    click.echo(message, err=True)


def color() -> bool | None:
    """Return False if NO_COLOR forbids colour (https://no-color.org), else None: the terminal decides."""
    return False if os.environ.get("NO_COLOR") else None


def _explain_usage(error: click.ClickException) -> None:
    """Write the error of a command line, and the usage of the command."""
    complain(error.format_message())
    context = getattr(error, "ctx", None)
    if context is not None:
        click.echo(f"{context.get_usage()}\n({context.command_path} --help lists the options)", err=True)


def _of_system(error: OSError) -> str:
    """Describe an error of the operating system: the file, the error and the remedy."""
    what = error.strerror or os.strerror(error.errno or 0)
    place = "" if error.filename is None else f"{error.filename}: "
    remedy = REMEDIES.get(error.errno or 0)
    return f"{place}{what[:1].lower()}{what[1:]}" + (f"; {remedy}" if remedy else "")
