"""One validated YAML per deep-RL experiment: the schema, its rules and its errors, without torch.

Names that need pydantic are imported on first use, so that importing the error is cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tesserl_configs.__about__ import __version__
from tesserl_configs.errors import ConfigError

if TYPE_CHECKING:
    from tesserl_configs.loader import dump_config, load_config
    from tesserl_configs.schedules import Schedule, value_at
    from tesserl_configs.schema import RunConfig

__all__ = ["ConfigError", "RunConfig", "Schedule", "__version__", "dump_config", "load_config", "value_at"]

_HOMES = {
    "RunConfig": "schema",
    "Schedule": "schedules",
    "dump_config": "loader",
    "load_config": "loader",
    "value_at": "schedules",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value
