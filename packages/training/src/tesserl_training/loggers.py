"""Loggers that send the metrics of ``metrics.csv`` to other projects; constructing one opens it."""

import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

RUN_ID_TAG = "tesserl.run_id"
"""Tag by which a resume finds its run in MLflow, because the server draws MLflow's ids."""

EVALUATION, EVALUATED_STEP = "evaluation/", "evaluation/step"
"""Prefix of the names of evaluation metrics, and the W&B metric with the step of the evaluated weights."""

PARAMETERS_AT_ONCE, LONGEST_PARAMETER = 100, 6_000
"""Limits of MLflow."""


class Logger(Protocol):
    """A destination of metrics."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add values by name, at a step."""

    def close(self) -> None:
        """Send waiting metrics and close."""


Opener = Callable[[int | None], Logger]
"""Open a logger, given the step from which a run is resumed; None for a new run."""


@dataclass(frozen=True)
class LoggedRun:
    """Description of a run for loggers.

    Args:
        title: displayed name of the run.
        run_id: id of the run; a resume keeps it.
        config: plain data of the configuration.
        keys: the same data, with one entry per dotted key.
    """

    title: str
    run_id: str
    config: Mapping[str, Any]
    keys: Mapping[str, Any]


class WandbLogger:
    """The run in Weights & Biases, under the run's id.

    Args:
        run: the run.
        directory: W&B writes to ``wandb/`` in this directory.
        resumed: whether the run is resumed.
        project: project; None takes W&B's setting.
        entity: user or team; None takes W&B's setting.
        tags: tags of the run.
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
            tags=list(tags) or None,  # an empty list would remove tags that people added
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

        Evaluations may be reported after their step. They carry that step as a value, which W&B uses as their x-axis.
        """
        own = {EVALUATED_STEP: step} if any(name.startswith(EVALUATION) for name in metrics) else {}
        self._last = max(self._last, step)
        self._run.log({**metrics, **own}, step=self._last)

    def close(self) -> None:
        """Send waiting metrics and close."""
        self._run.finish()


class MLflowLogger:
    """The run in MLflow; a resume finds it by a tag with the run's id.

    Args:
        run: the run.
        resumed: whether the run is resumed.
        experiment: name of the experiment, created if it does not exist.
        tags: tags of the run, with empty values.
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
        """Return the id of an experiment, created if necessary; another run may create it at the same time."""
        from mlflow.exceptions import MlflowException

        if (found := self._client.get_experiment_by_name(name)) is None:
            with contextlib.suppress(MlflowException):
                return str(self._client.create_experiment(name))
            found = self._client.get_experiment_by_name(name)
        if found is None:
            raise RuntimeError(f"there is no experiment {name}, and none can be made")
        return str(found.experiment_id)

    def _record(self, keys: Mapping[str, Any]) -> None:
        """Record the configuration as MLflow's parameters."""
        from mlflow.entities import Param

        rest = (Param(key, str(value)[:LONGEST_PARAMETER]) for key, value in keys.items())
        while batch := list(itertools.islice(rest, PARAMETERS_AT_ONCE)):
            self._client.log_batch(self._id, params=batch)


class TrackioLogger:
    """The run in trackio, named by title and run id, because trackio identifies runs by name.

    Args:
        run: the run.
        resumed: whether the run is resumed.
        project: name of the project, created if it does not exist.
    """

    def __init__(self, run: LoggedRun, *, resumed: bool, project: str) -> None:
        import trackio

        with contextlib.redirect_stdout(sys.stderr):  # stdout is reserved for the run's directory, which scripts read
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
        """Write waiting metrics and close."""
        import trackio

        with contextlib.redirect_stdout(sys.stderr):
            trackio.finish()  # after run.finish(), trackio would finish the run again at exit
