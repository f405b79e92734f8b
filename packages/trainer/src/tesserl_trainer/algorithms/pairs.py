"""Build the sources of preference pairs (a store, new trajectories) and the batches that the loss reads."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from tesserl_collectors.interfaces import GroupCollecting
from tesserl_configs import ConfigError
from tesserl_configs.pairs import (
    EpisodeSegments,
    FixedSegments,
    MixedPairs,
    OfflinePairs,
    OnlinePairs,
    Segments,
    VariableSegments,
)
from tesserl_configs.preferences import CPLConfig, DPOConfig
from tesserl_environments import ObservationLayout
from tesserl_preference_data import PreferencePairs, ScriptedTeacher, StoreError
from tesserl_trainer.algorithms.task import Task
from tesserl_training.pair_batches import REFERENCE, SCORE, VALUE_TARGET, Batches, with_entries
from tesserl_training.pair_sources import FreshPairs, StoredPairs, check_actions, check_entries

Options = DPOConfig | CPLConfig
"""The block of an algorithm that learns from pairs."""


def build_batches(task: Task, options: Options, *, frozen: bool) -> Batches:
    """Build the batch maker for the entries that the loss reads, including those of a ``frozen`` reference."""
    keys = entries_of(options, task.layout)
    if frozen:
        keys.append(REFERENCE)
    return Batches(keys, ranking=SCORE in keys, device=task.config.device)


def build_stored_pairs(task: Task, options: Options, path: str) -> StoredPairs:
    """Open a store of pairs; refuse one of another task."""
    config, layout = task.config, task.layout

    def prepare(stored: PreferencePairs) -> PreferencePairs:
        rewards = {"reward"} if options.value else set()
        keys = {*layout.keys, "action", *rewards}
        check_entries(stored.pool.blocks[0].steps, sorted(keys), layout.shapes, path)
        check_actions((block.steps for block in stored.pool.blocks), layout.mask, path)
        return _prepare(task, options, stored)

    try:
        return StoredPairs(path, prepare, holdout_fraction=config.pairs.holdout_fraction, seed=config.seed)
    except (StoreError, ValueError) as error:
        raise ConfigError(f"pairs.source.path: {error}") from error


def check_pairs(task: Task) -> None:
    """Open the store of pairs, if the configuration names one, to check it."""
    options, source = task.config.options, task.config.pairs.source
    if isinstance(options, Options) and not isinstance(source, OnlinePairs):
        build_stored_pairs(task, options, source.path)


def build_fresh_pairs(
    task: Task,
    options: Options,
    source: OnlinePairs | MixedPairs,
    collector: GroupCollecting,
    agreed: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> FreshPairs:
    """Build the object that makes pairs from new trajectories."""
    teacher = source.teacher
    return FreshPairs(
        collector,
        lambda pairs: _prepare(task, options, pairs),
        num_groups=source.num_groups,
        same_start=source.same_start,
        segment_length=_segment_length(source.segments),
        num_pairs=source.pairs_per_iteration,
        discount=source.score_discount,
        min_margin=source.min_margin,
        ties=source.ties,
        teacher=None
        if teacher is None
        else ScriptedTeacher(
            beta=teacher.beta,
            discount=teacher.discount,
            skip=teacher.skip,
            equal=teacher.equal,
            mistake=teacher.mistake,
            bounds=teacher.bounds,
        ),
        buffer_size=source.buffer_size,
        holdout_fraction=task.config.pairs.holdout_fraction,
        agreed=agreed,
    )


def entries_of(options: Options, layout: ObservationLayout) -> list[str]:
    """Return the entries of each step that the loss reads."""
    keys = [*layout.keys, "action"]
    if options.value is not None:
        keys.append(VALUE_TARGET)
    if isinstance(options, CPLConfig) and options.comparison == "ranking":
        keys.append(SCORE)
    return keys


def _segment_length(segments: Segments) -> int | tuple[int, int] | None:
    match segments:
        case FixedSegments():
            return segments.length
        case VariableSegments():
            return segments.min_length, segments.max_length
        case EpisodeSegments():
            return None


def _prepare(task: Task, options: Options, pairs: PreferencePairs) -> PreferencePairs:
    source = task.config.pairs.source
    return with_entries(
        pairs,
        entries_of(options, task.layout),
        value_discount=None if options.value is None else options.value.discount,
        score_discount=1.0 if isinstance(source, OfflinePairs) else source.score_discount,
    )
