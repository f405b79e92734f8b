"""Errors for wrong arguments of a command, and commands quoted in messages."""

import shlex
from collections.abc import Mapping
from pathlib import Path


class ArgumentError(ValueError):
    """An argument of a command is wrong; the exit code is that of wrong usage."""

    exit_code = 2


class TakenError(FileExistsError):
    """The path for new files exists already; the exit code is that of wrong usage."""

    exit_code = 2


def command_line(*words: object) -> str:
    """Return a command for pasting into a shell, with quotes where necessary."""
    return shlex.join(map(str, words))


def check_places(files: Mapping[str, Path | None]) -> None:
    """Refuse unwritable output files, before work of minutes begins."""
    for option, file in files.items():
        if file is not None and not (place := file.parent).is_dir():
            remedy = command_line("mkdir", "-p", place)
            raise ArgumentError(f"{option} {file}: there is no directory {place}; make it first: {remedy}")
