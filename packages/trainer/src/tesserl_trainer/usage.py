"""Wrong arguments of a command, and the commands that messages tell a person to run."""

import shlex
from collections.abc import Mapping
from pathlib import Path


class ArgumentError(ValueError):
    """An argument of a command that is wrong, whatever is on disk; the exit code is that of wrong usage."""

    exit_code = 2


class TakenError(FileExistsError):
    """A place named for new files where something lies already; the exit code is that of wrong usage."""

    exit_code = 2


def command_line(*words: object) -> str:
    """Return a command that can be pasted into a shell, with quotes around words that need them."""
    return shlex.join(map(str, words))


def check_places(files: Mapping[str, Path | None]) -> None:
    """Refuse files that nothing could be written to, before the minutes that what is written takes."""
    for option, file in files.items():
        if file is not None and not (place := file.parent).is_dir():
            remedy = command_line("mkdir", "-p", place)
            raise ArgumentError(f"{option} {file}: there is no directory {place}; make it first: {remedy}")
