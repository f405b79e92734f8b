"""Continue a run from one of its checkpoints."""

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from tesserl_analysis import run_files
from tesserl_configs import ConfigError, RunConfig
from tesserl_configs.diff import Difference, diff_configs
from tesserl_environments.main_guard import refuse_to_run_again
from tesserl_ranks.group import Ranks
from tesserl_ranks.joining import joined, launched
from tesserl_storage.errors import StorageError
from tesserl_storage.sealed_json import read_sealed
from tesserl_trainer.algorithms import builder_of
from tesserl_trainer.algorithms.run import early_stopping_of
from tesserl_trainer.machine import refuse_missing
from tesserl_trainer.running.directories import lock
from tesserl_trainer.running.run_directory import CHANGEABLE, as_measured, run_config
from tesserl_trainer.running.run_to_end import run_to_end
from tesserl_training.checkpoints.checkpoint import Checkpoint
from tesserl_training.checkpoints.run_checkpoints import Checkpoints
from tesserl_training.checkpoints.run_identity import read_identity
from tesserl_training.evaluations import reached_in
from tesserl_training.logging import read_record
from tesserl_training.loops.cloning import refuse_cloned

PLACES = ("pairs.source.path", "environment.module_path")
"""Keys that a resume may change to another location of the same pairs or modules."""


def continue_run(run_dir: Path, checkpoint: str, config_of: Callable[[], RunConfig]) -> Path:
    """Continue a run; read its files only while its directory is locked."""
    refuse_to_run_again()
    device = run_config(run_dir).device  # before locking: a directory without a run must not keep a lock file
    with joined(device) as ranks:
        return continue_together(run_dir, "latest" if _is_restarted() else checkpoint, config_of, ranks)


def _is_restarted() -> bool:
    """Return whether ``torchrun`` has started this command again."""
    launch = launched()
    return launch is not None and launch.restarts > 0


def continue_together(run_dir: Path, checkpoint: str, config_of: Callable[[], RunConfig], ranks: Ranks) -> Path:
    """Continue a run; rank 0 locks its directory and finds the checkpoint."""
    with ExitStack() as stack:

        def wanted() -> RunConfig:
            return as_measured(config_of(), run_config(run_dir))

        def find() -> str | None:
            stack.enter_context(lock(run_dir))
            config = wanted()
            changes = diff_configs(run_config(run_dir), config)
            found = _load(checkpoint, run_dir, changes)
            if not changes and _is_finished(run_dir, found, config):
                say(f"already finished at step {found.step}: {run_dir}")
                return None
            return found.path.name

        name = ranks.by_first(find, "reading the checkpoint")
        if name is None:
            return run_dir
        config = wanted()
        refuse_missing(config, files=False)
        found = Checkpoints(run_dir).load(name)
        return run_to_end(config, run_dir, found, builder_of(config.algorithm).build_loop, config.total_steps, ranks)


def _load(name: str, run_dir: Path, changes: Sequence[Difference]) -> Checkpoint:
    """Return the checkpoint to continue from; refuse changed settings, which would take effect only in part."""
    checkpoint = Checkpoints(run_dir).load(name)
    refuse_cloned(checkpoint)
    for key, was, wanted in changes:
        if key in PLACES:  # stores are compared by content
            continue
        if key.split(".")[0] not in CHANGEABLE:
            raise ConfigError(
                f"{key}: expected {was} as in {run_dir / 'config.yaml'}, got {wanted}; a resumed run can only change "
                f"{', '.join(CHANGEABLE)}, start a new run for the rest"
            )
        if key == "total_steps" and wanted < checkpoint.step:
            raise ConfigError(
                f"total_steps: expected at least {checkpoint.step:,}, the step of the checkpoint, got {wanted:,}; "
                "name an older checkpoint of the run, or leave it out"
            )
    if read_record(run_dir / run_files.METRICS, checkpoint.manifest["record"]) is None:
        say(f"note: {run_dir / run_files.METRICS} is missing; a new record begins at step {checkpoint.step:,}")
    return checkpoint


def say(text: str) -> None:
    """Write a line to standard error."""
    sys.stderr.write(f"{text}\n")


def _is_finished(run_dir: Path, found: Checkpoint, config: RunConfig) -> bool:
    """Return whether a run is finished: its training is over, and the final evaluation is on disk."""
    identity, file, early_stopping = read_identity(run_dir), run_dir / run_files.EVALUATION, early_stopping_of(config)
    stopped = early_stopping is not None and reached_in(found.state, early_stopping) >= early_stopping.evaluations
    if (found.step < config.total_steps and not stopped) or identity is None or not file.is_file():
        return False
    try:
        return read_sealed(file).get("run_id") == identity.run_id
    except StorageError:  # damaged: evaluate again
        return False
