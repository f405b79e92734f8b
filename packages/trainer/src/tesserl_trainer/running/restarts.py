"""Record the ``torchrun`` command that started a run, so that restarted ranks continue the same run."""

import json
import shlex
from pathlib import Path

from tesserl_analysis import run_files
from tesserl_configs import RunConfig
from tesserl_ranks.joining import launched
from tesserl_storage.whole_files import write_json
from tesserl_trainer.running.directories import clear
from tesserl_training.checkpoints.run_checkpoints import Checkpoints


def mark_launch(run_dir: Path) -> None:
    """Record the ``torchrun`` command that started a run; do nothing without one."""
    launch = launched()
    if launch is not None:
        write_json(run_dir / run_files.LAUNCH, {"torchrun": launch.identity})


def earlier_run(config: RunConfig, run_dir: str | Path | None) -> str | None:
    """Return the run that this ``torchrun`` command started before a restart; remove it if it has no checkpoint."""
    launch = launched()
    if launch is None or launch.restarts == 0:
        return None
    places = Path("runs").glob(f"{config.name}*") if run_dir is None else [Path(run_dir)]
    for place in places:
        if _identity_in(place) != launch.identity:
            continue
        if Checkpoints(place).paths():
            return str(place)
        clear(place)
    return None


def _identity_in(run_dir: Path) -> str | None:
    try:
        identity = json.loads((run_dir / run_files.LAUNCH).read_text(encoding="utf-8"))["torchrun"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return identity if isinstance(identity, str) else None


def continued_by(run_dir: Path, number: int) -> str:
    """Return the advice for continuing a checkpoint of ``number`` ranks."""
    resume = shlex.join(["train", "--resume", str(run_dir)])
    if number == 1:
        command = f"continue it without torchrun: tesserl {resume}"
    else:
        command = f"continue it with {number} ranks: torchrun --nproc-per-node {number} -m tesserl_trainer {resume}"
    return f"{command}, or start a new run from it with --set initial_weights"
