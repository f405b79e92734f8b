"""Read and write the configuration in a run's directory, and decide what a resume may change. Imports no torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tesserl_analysis import run_files
from tesserl_configs import RunConfig, dump_config, load_config
from tesserl_configs.document import parse, render
from tesserl_configs.loader import as_data
from tesserl_storage.errors import StorageError
from tesserl_storage.sealed_json import content_digest
from tesserl_training.checkpoints.run_identity import Identity, draw_run_id, require_identity, write_identity

CHANGEABLE = ("checkpoint", "early_stopping", "evaluation", "logging", "total_steps")
"""Keys that a resume may change, because the state of a run does not depend on them."""


def begin_run(run_dir: Path, config: RunConfig) -> None:
    """Write the files that identify a new run: ``run.json`` with a newly drawn id, and ``config.yaml``."""
    text = dump_config(config)
    write_identity(run_dir, Identity(draw_run_id(), fixed_digest(parse(text).data)), text)


def change_run(run_dir: Path, config: RunConfig) -> None:
    """Write the changes of a resume to ``config.yaml``; leave every other key unchanged."""
    identity = require_identity(run_dir)
    data, wanted = parse((run_dir / run_files.CONFIG).read_text(encoding="utf-8")).data, as_data(config)
    write_identity(run_dir, identity, render(data | {key: wanted[key] for key in CHANGEABLE}))


def run_config(run_dir: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the configuration with which a run was started.

    Args:
        run_dir: directory of the run.
        overrides: ``key=value`` on top of the configuration.

    Raises:
        StorageError: the directory holds no run, or ``config.yaml`` is not as the run wrote it.
        ConfigError: an override is wrong.
    """
    identity, path = require_identity(run_dir), run_dir / run_files.CONFIG
    if fixed_digest(parse(path.read_text(encoding="utf-8")).data) != identity.config_sha256:
        raise StorageError(f"{path}: not the configuration of this run (run.json); put the file back")
    return load_config(path, overrides)


def measures_precision(config: RunConfig) -> bool:
    """Return whether a run measures its precision when it starts: ``precision: auto``."""
    return config.options.model_dump(include={"precision"}).get("precision") == "auto"


def with_precision(config: RunConfig, precision: str) -> RunConfig:
    """Return the configuration with this precision in the block of its algorithm."""
    options = config.options.model_copy(update={"precision": precision})
    return config.model_copy(update={config.algorithm: options})


def as_measured(config: RunConfig, there: RunConfig) -> RunConfig:
    """Return the configuration with the precision that a run measured, in place of ``auto``."""
    if not measures_precision(config) or there.algorithm != config.algorithm:
        return config
    return with_precision(config, there.options.model_dump(include={"precision"})["precision"])


def fixed_digest(data: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a configuration's plain data, without the keys that a resume can change."""
    return content_digest({key: value for key, value in data.items() if key not in CHANGEABLE})
