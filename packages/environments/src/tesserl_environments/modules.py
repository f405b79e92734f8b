"""Import a user's modules: tasks that register themselves, and wrappers named by ``module:Class``."""

import importlib
import sys
from collections.abc import Iterable
from typing import Any

from tesserl_environments.errors import EnvironmentArgumentError


def extend_module_path(directories: Iterable[str]) -> None:
    """Add directories to the end of Python's module search path.

    Worker processes inherit the path.

    Args:
        directories: absolute paths.
    """
    sys.path.extend(directory for directory in directories if directory not in sys.path)


def import_named(name: str, argument: str) -> Any:
    """Import a module.

    Args:
        name: dotted name of the module.
        argument: the argument or key that names it; errors begin with it.

    Raises:
        EnvironmentArgumentError: there is no such module, or its import raised an error.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise EnvironmentArgumentError(
                f"{argument}: there is no module {error.name}; "
                "install its package, or name its directory in the module path"
            ) from error
        raise EnvironmentArgumentError(f"{argument}: {name} cannot be imported: {error}") from error
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise EnvironmentArgumentError(f"{argument}: {name} cannot be imported: {said}") from error


def load_named(target: str, argument: str) -> Any:
    """Import ``module:name`` and return the named object.

    Args:
        target: module and name, separated by a colon; the name may have dots.
        argument: the argument or key that names it; errors begin with it.

    Raises:
        EnvironmentArgumentError: ``target`` has another form, the module cannot be imported, or it lacks the name.
    """
    module, colon, name = target.partition(":")
    if not (module and colon and name):
        raise EnvironmentArgumentError(f"{argument}: expected module:name, got {target}")
    found = import_named(module, argument)
    for part in name.split("."):
        if not hasattr(found, part):
            raise EnvironmentArgumentError(f"{argument}: {module} has no {name}; correct the name")
        found = getattr(found, part)
    return found


def split_id(id: str) -> tuple[str | None, str]:  # noqa: A002 - Gymnasium's name of it
    """Split ``module:Id`` into the module to import and the id that it registers; other ids have no module."""
    module, colon, name = id.rpartition(":")
    return (module, name) if colon else (None, id)
