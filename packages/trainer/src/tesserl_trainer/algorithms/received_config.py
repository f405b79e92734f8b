"""The configuration of a run in a worker process."""

from collections.abc import Mapping
from typing import Any

from gymnasium.vector.utils import CloudpickleWrapper

from tesserl_configs import RunConfig
from tesserl_configs.schema import config_class
from tesserl_environments import register_maker


def received_config(data: Mapping[str, Any], maker: CloudpickleWrapper | None) -> RunConfig:
    """Return the configuration that another process has sent.

    Args:
        data: of the configuration.
        maker: function that makes one environment, of a run from Python; None: the task is registered.
    """
    config = config_class(data).model_validate(data)
    if maker is not None:
        register_maker(config.environment.id, maker.fn)
    return config
