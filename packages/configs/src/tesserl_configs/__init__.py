"""One validated YAML per deep-RL experiment: the schema, its rules and its errors, without torch."""

from tesserl_configs.errors import ConfigError
from tesserl_configs.loader import dump_config, load_config
from tesserl_configs.schedules import Schedule, value_at
from tesserl_configs.schema import RunConfig

__all__ = ["ConfigError", "RunConfig", "Schedule", "dump_config", "load_config", "value_at"]
