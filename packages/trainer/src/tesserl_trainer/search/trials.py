"""The trials of a search: Optuna's study in a journal file, from which a search can continue."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tesserl_configs import ConfigError
from tesserl_configs.diff import flat_data
from tesserl_configs.search import MedianPruning, Range, Search
from tesserl_environments import derived_seed
from tesserl_trainer.usage import ArgumentError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

JOURNAL = "search.journal"
STUDY = "search"
DEFINITION = "search"
"""Attribute of the study that stores how its trials are drawn and scored."""

FREE = ("name", "seed", "checkpoint", "logging")
"""Keys of the base that are not compared, because the search sets them or they do not affect results."""


@dataclass(frozen=True)
class Trial:
    """A trial with its drawn values."""

    number: int
    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Return the name of the trial's directory."""
        return f"trial-{self.number:04d}"


class Trials:
    """All trials of a search, in a journal file in its directory; lock the directory first."""

    def __init__(self, search: Search, directory: Path) -> None:
        try:
            import optuna
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend
        except ImportError as error:
            raise ArgumentError('tesserl search needs Optuna; install "tesserl-trainer[search]"') from error

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._search, pruning = search, search.config.pruning
        self._pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
        if isinstance(pruning, MedianPruning):
            self._pruner = optuna.pruners.MedianPruner(pruning.startup_trials, pruning.warmup_steps)
        journal = directory / JOURNAL
        _repair(journal)
        self._storage = JournalStorage(JournalFileBackend(str(journal)))
        self.study: Study = optuna.create_study(
            storage=self._storage, study_name=STUDY, direction="maximize", load_if_exists=True
        )
        self._distributions = {key: self._distribution(key) for key in search.config.space}
        self._begin(directory)

    def known(self) -> list[Trial]:
        """Return all trials in the order in which they were drawn."""
        return [Trial(it.number, self._decoded(it.params)) for it in self._frozen()]

    def unfinished(self) -> list[Trial]:
        """Return the trials without a result."""
        open_ones = {it.number for it in self._frozen() if not it.state.is_finished()}
        return [trial for trial in self.known() if trial.number in open_ones]

    def num_finished(self) -> int:
        """Return the number of trials with a result: a value, pruned or failed."""
        return sum(it.state.is_finished() for it in self._frozen())

    def has_value(self) -> bool:
        """Return whether any trial has a value."""
        return any(it.state.name == "COMPLETE" for it in self._frozen())

    def ask(self) -> Trial | None:
        """Draw the values of a new trial; return None if there are enough trials."""
        import optuna

        if len(self._frozen()) >= self._search.config.trials:
            return None
        asked_before = len(self.study.get_trials(deepcopy=False))
        seed = derived_seed(self._search.config.sampler_seed, asked_before)  # reproducible when a search is continued
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        asked = self.study.ask(self._distributions)
        return Trial(asked.number, self._decoded(asked.params))

    def report(self, number: int, evaluations: Iterable[tuple[int, float]]) -> None:
        """Record the new evaluations of a training trial."""
        trial_id = self._id(number)
        reported = self._storage.get_trial(trial_id).intermediate_values
        for step, value in evaluations:
            if step not in reported and math.isfinite(value):
                self._storage.set_trial_intermediate_value(trial_id, step, value)

    def is_hopeless(self, number: int) -> bool:
        """Return whether the last reported evaluation prunes a trial."""
        return self._pruner.prune(self.study, self._storage.get_trial(self._id(number)))

    def finish(self, number: int, value: float) -> None:
        """Record the value of a trial; NaN makes it a failed trial."""
        self.study.tell(number, value)

    def stop(self, number: int) -> None:
        """Record that a trial was pruned."""
        from optuna.trial import TrialState

        self.study.tell(number, state=TrialState.PRUNED)

    def fail(self, number: int) -> None:
        """Record that a trial failed; it is not repeated."""
        from optuna.trial import TrialState

        self.study.tell(number, state=TrialState.FAIL)

    def finished(self) -> "list[FrozenTrial]":
        """Return Optuna's records of the trials with a result, with decoded values."""
        return [it for it in self._frozen() if it.state.is_finished()]

    def values_of(self, frozen: "FrozenTrial") -> dict[str, Any]:
        """Return the decoded values of a record."""
        return self._decoded(frozen.params)

    def _begin(self, directory: Path) -> None:
        """Store the search's definition or compare it with the stored one; fail trials with incomplete values."""
        config = self._search.config
        found = flat_data(self._search.trial({}, "base"))
        base = {key: value for key, value in found.items() if key.split(".")[0] not in FREE}
        definition = {"base": base, **config.model_dump(mode="json", exclude={"name", "config", "set", "trials"})}
        before = self.study.user_attrs.get(DEFINITION)
        if before is None:
            self.study.set_user_attr(DEFINITION, definition)
            if values := self._search.base():
                self.study.enqueue_trial({key: self._encoded(key, value) for key, value in values.items()})
        elif changed := [key for key, value in definition.items() if before.get(key) != value]:
            if "base" in changed:
                old = before["base"]
                changed += [f"base.{key}" for key in {**old, **base} if old.get(key) != base.get(key)]
                changed.remove("base")
            raise ConfigError(
                f"{directory}: holds a search with another {', '.join(changed)}; go back to it, or give this search "
                "another directory with --name or --runs"
            )
        for frozen in self.study.get_trials(deepcopy=False):
            if frozen.state.name == "RUNNING" and set(frozen.params) != set(self._distributions):
                self.fail(frozen.number)

    def _frozen(self) -> "list[FrozenTrial]":
        return [it for it in self.study.get_trials(deepcopy=False) if set(it.params) == set(self._distributions)]

    def _id(self, number: int) -> int:
        study = self._storage.get_study_id_from_name(STUDY)
        return self._storage.get_trial_id_from_study_id_trial_number(study, number)

    def _distribution(self, key: str) -> "BaseDistribution":
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        dimension = self._search.config.space[key]
        if not isinstance(dimension, Range):
            return CategoricalDistribution([json.dumps(choice) for choice in dimension])
        if key in self._search.whole:
            return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
        return FloatDistribution(dimension.low, dimension.high, log=dimension.log)

    def _encoded(self, key: str, value: Any) -> Any:
        """Encode a value for Optuna: choices become text, because a choice may be a list or a mapping."""
        return value if isinstance(self._search.config.space[key], Range) else json.dumps(value)

    def _decoded(self, params: Mapping[str, Any]) -> dict[str, Any]:
        ranges = {key for key, it in self._search.config.space.items() if isinstance(it, Range)}
        order = [key for key in self._search.config.space if key in params]
        return {key: params[key] if key in ranges else json.loads(params[key]) for key in order}


def _repair(journal: Path) -> None:
    """Cut an unfinished last line, and remove the lock of a killed search."""
    for lock in journal.parent.glob(f"{journal.name}.lock*"):
        lock.unlink()
    if journal.exists():
        content = journal.read_bytes()
        if content and not content.endswith(b"\n"):
            with journal.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)
