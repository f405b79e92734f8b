"""The configuration of a run: its keys, the rules between them, and the algorithms of installed packages."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    create_model,
    field_validator,
    model_serializer,
    model_validator,
)

from tesserl_configs import rules
from tesserl_configs.algorithms import BUILT_IN, SHARED, declared, find, installed, owners_of
from tesserl_configs.btr_resolution import resolve
from tesserl_configs.defaults import with_defaults
from tesserl_configs.errors import ConfigError
from tesserl_configs.run_keys import RunKeys

OWNED = (*BUILT_IN, *SHARED)
"""Blocks that only some algorithms read; files of other algorithms must not hold them."""


class RunConfig(RunKeys):
    """Configuration of one run; blocks of other algorithms have their defaults and are neither read nor written."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_where_the_file_is_silent(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        resolution = resolve(data)
        if resolution.problems:
            raise ConfigError(*resolution.problems)
        return with_defaults(resolution.data)

    @field_validator("extends")
    @classmethod
    def _is_resolved_when_a_file_is_read(cls, name: str | None) -> None:
        if name is not None:
            raise ValueError("is read from files alone; write it at the top level of a file and load that")

    @field_validator("btr")
    @classmethod
    def _forget_what_stands_elsewhere_now(cls, block: Any) -> None:  # noqa: ARG003 - pydantic hands it over
        return None

    @field_validator(*OWNED, mode="before")
    @classmethod
    def _belongs_to_the_algorithm(cls, block: Any, info: ValidationInfo) -> Any:
        algorithm = info.data.get("algorithm")
        owners = owners_of(str(info.field_name), algorithm)
        if algorithm is not None and algorithm not in owners:
            raise ValueError(f"belongs to algorithm {' or '.join(owners)}, got algorithm {algorithm}; remove the block")
        return block

    @model_serializer(mode="wrap")
    def _without_other_algorithms(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        owners = {key: owners_of(key, self.algorithm) for key in OWNED}
        return {
            key: value for key, value in serialize(self).items() if self.algorithm in owners.get(key, (self.algorithm,))
        }

    @model_validator(mode="after")
    def _check_rules(self) -> RunConfig:
        problems = list(rules.check(self))
        if problems:
            raise ConfigError(*problems)
        return self


def config_class(data: Any) -> type[RunConfig]:
    """Return the class that validates the data of a file.

    Args:
        data: data of a whole file.

    Returns:
        `RunConfig`, with the block of the file's algorithm if another package declares it.

    Raises:
        ConfigError: the declaration of the algorithm cannot be imported, or there are two.
    """
    algorithm = find(data.get("algorithm")) if isinstance(data, Mapping) else None
    return RunConfig if algorithm is None or algorithm.name in BUILT_IN else extended(algorithm.name)


def complete_class() -> type[RunConfig]:
    """Return `RunConfig` with the blocks of the algorithms of all installed packages.

    Raises:
        ConfigError: see `tesserl_configs.algorithms.installed`.
    """
    others = [algorithm.name for algorithm in installed() if algorithm.name not in BUILT_IN]
    return extended(*others) if others else RunConfig


@functools.cache
def extended(*names: str) -> type[RunConfig]:
    """Return `RunConfig` with the blocks of other packages' algorithms."""
    every = (*BUILT_IN, *names)
    fields: dict[str, Any] = {"algorithm": (Literal[every], RunConfig.model_fields["algorithm"])}
    for name in names:
        algorithm = declared(name)
        fields[name] = (
            algorithm.options,
            Field(default_factory=algorithm.options, description=algorithm.title),
        )
    return create_model("RunConfig", __base__=RunConfig, __doc__=RunConfig.__doc__, __module__=__name__, **fields)
