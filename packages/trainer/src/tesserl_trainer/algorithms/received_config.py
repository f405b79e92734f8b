"""Code shared by the learner and its worker processes: the configuration that is sent, and the errors."""

from collections.abc import Mapping
from typing import Any

from gymnasium.vector.utils import CloudpickleWrapper

from tesserl_configs import ConfigError, RunConfig
from tesserl_configs.schema import config_class
from tesserl_environments import TaskError, WorkerError, register_maker

PASSED_ON = (ConfigError, TaskError, WorkerError)
"""Errors of workers that the learner raises unchanged."""


def received_config(data: Mapping[str, Any], maker: CloudpickleWrapper | None) -> RunConfig:
    """Return the configuration sent by another process; register ``maker``, which makes its environments, if given."""
    config = config_class(data).model_validate(data)
    if maker is not None:
        register_maker(config.environment.id, maker.fn)
    return config
