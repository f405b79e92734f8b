"""Loggers of other projects, as views of ``metrics.csv``: one class for each, opened when it is made."""

import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

RUN_ID_TAG = "tesserl.run_id"
"""Tag by which a resume finds its run at MLflow, where the server draws the ids."""

EVALUATION, EVALUATED_STEP = "evaluation/", "evaluation/step"
"""The beginning of the names of evaluations, and the metric at W&B that has the step of the weights."""

PARAMETERS_AT_ONCE, LONGEST_PARAMETER = 100, 6_000
"""Limits of MLflow."""


class Logger(Protocol):
    """A place that metrics go to."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add values by name, at a step."""

    def close(self) -> None:
        """Send what is waiting and end."""


Opener = Callable[[int | None], Logger]
"""Open a logger, given the step from which a run is resumed; None for a new run."""


@dataclass(frozen=True)
class LoggedRun:
    """A run as loggers show it.

    Args:
        title: its name for people.
        run_id: its id, also after a resume.
        config: plain data of its configuration.
        keys: the same, with one entry for each dotted key.
    """

    title: str
    run_id: str
    config: Mapping[str, Any]
    keys: Mapping[str, Any]


class WandbLogger:
    """The run at Weights & Biases, with the run's own id.

    Args:
        run: to be shown.
        directory: W&B writes to ``wandb/`` in it.
        resumed: the run continues.
        project: null: W&B's own setting.
        entity: user or team; null: W&B's own setting.
        tags: of the run.
    """

    def __init__(
        self,
        run: LoggedRun,
        directory: Path,
        *,
        resumed: bool,
        project: str | None = None,
        entity: str | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        import wandb

        self._run = wandb.init(
            project=project,
            entity=entity,
            tags=list(tags) or None,  # an empty list would remove those that were added by hand
            name=run.title,
            id=run.run_id,
            dir=str(directory),
            config=dict(run.config),
            allow_val_change=True,
            resume="allow" if resumed else "never",
        )
        self._run.define_metric(f"{EVALUATION}*", step_metric=EVALUATED_STEP)
        self._last = 0

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add values by name; W&B ignores steps before its last one.

        Evaluations may be reported later than at their step: they have it as a value, over which W&B shows them.
        """
        own = {EVALUATED_STEP: step} if any(name.startswith(EVALUATION) for name in metrics) else {}
        self._last = max(self._last, step)
        self._run.log({**metrics, **own}, step=self._last)

    def close(self) -> None:
        """Send what is waiting."""
        self._run.finish()


class MLflowLogger:
    """The run at MLflow, found again by a tag with the run's id.

    Args:
        run: to be shown.
        resumed: the run continues.
        experiment: made if there is none.
        tags: of the run; their values are empty.
    """

    def __init__(self, run: LoggedRun, *, resumed: bool, experiment: str, tags: Sequence[str] = ()) -> None:
        from mlflow.entities import Metric
        from mlflow.tracking import MlflowClient

        self._client, self._metric = MlflowClient(), Metric
        experiment_id = self._experiment(experiment)
        wanted = f"tags.`{RUN_ID_TAG}` = '{run.run_id}'"
        found = self._client.search_runs([experiment_id], wanted, max_results=1) if resumed else []
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        names = {RUN_ID_TAG: run.run_id} | dict.fromkeys(tags, "")
        self._id = self._client.create_run(experiment_id, run_name=run.title, tags=names).info.run_id
        self._record(run.keys)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add values by name."""
        now = int(time.time() * 1_000)
        values = [self._metric(name, value, now, step) for name, value in metrics.items()]
        self._client.log_batch(self._id, metrics=values)

    def close(self) -> None:
        """Mark the run as finished; a resume opens it again."""
        self._client.set_terminated(self._id)

    def _experiment(self, name: str) -> str:
        """Return the id of an experiment; another run may make it at the same time."""
        from mlflow.exceptions import MlflowException

        if (found := self._client.get_experiment_by_name(name)) is None:
            with contextlib.suppress(MlflowException):
                return str(self._client.create_experiment(name))
            found = self._client.get_experiment_by_name(name)
        if found is None:
            raise RuntimeError(f"there is no experiment {name}, and none can be made")
        return str(found.experiment_id)

    def _record(self, keys: Mapping[str, Any]) -> None:
        """Record the configuration, which MLflow calls parameters."""
        from mlflow.entities import Param

        rest = (Param(key, str(value)[:LONGEST_PARAMETER]) for key, value in keys.items())
        while batch := list(itertools.islice(rest, PARAMETERS_AT_ONCE)):
            self._client.log_batch(self._id, params=batch)


class TrackioLogger:
    """The run in trackio, which knows runs by their names: the title and the run's id.

    Args:
        run: to be shown.
        resumed: the run continues.
        project: made if there is none.
    """

    def __init__(self, run: LoggedRun, *, resumed: bool, project: str) -> None:
        import trackio

        with contextlib.redirect_stdout(sys.stderr):  # stdout is the run's directory, for scripts
            self._run = trackio.init(
                project,
                name=f"{run.title}-{run.run_id}",
                config=dict(run.config),
                resume="allow" if resumed else "never",
                embed=False,
            )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add values by name."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Write what is waiting."""
        import trackio

        with contextlib.redirect_stdout(sys.stderr):
            trackio.finish()  # not the run's own method, after which trackio ends it once more when Python exits
