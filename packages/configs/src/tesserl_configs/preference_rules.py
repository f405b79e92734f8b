"""Rules about ``pairs:``, ``dpo:`` and ``cpl:``, one function each."""

from __future__ import annotations

from collections.abc import Iterator

from tesserl_configs.environment_rules import check_starts, rewards_have_one_unit
from tesserl_configs.errors import Problem
from tesserl_configs.preference_losses import AVERAGED, REFERENCE_FREE, SORTED, KTOLoss
from tesserl_configs.preferences import PreferenceOptions
from tesserl_configs.run_keys import Rule, RunKeys
from tesserl_configs.size_rules import pairs_fit_into_memory, played_groups_fit_into_memory


def starts_can_be_set(config: RunKeys) -> Iterator[Problem]:
    """Check that the trajectories of a group can share their start."""
    source = config.pairs.source
    if source.kind != "offline":
        yield from check_starts(config, "pairs.source.starts", source.starts.kind)


def lengths_have_a_range(config: RunKeys) -> Iterator[Problem]:
    """Check that the shortest segment is not longer than the longest one."""
    source = config.pairs.source
    if source.kind == "offline" or source.segments.kind != "variable":
        return
    segments = source.segments
    if segments.min_length > segments.max_length:
        yield Problem(
            "pairs.source.segments.min_length",
            f"expected at most max_length = {segments.max_length}, got {segments.min_length}",
        )


def there_are_enough_pairs(config: RunKeys) -> Iterator[Problem]:
    """Check that the episodes of an iteration allow the wanted number of pairs."""
    source = config.pairs.source
    if source.kind == "offline" or source.segments.kind != "episode" or source.pairs_per_iteration is None:
        return
    size, starts = source.group_size, source.num_groups
    if not source.same_start:
        size, starts = size * starts, 1
    most = starts * size * (size - 1) // 2
    if source.pairs_per_iteration > most:
        yield Problem(
            "pairs.source.pairs_per_iteration",
            f"expected at most {most}, the pairs of {source.num_groups} starts with {source.group_size} episodes each"
            + (", of one start" if source.same_start else "")
            + f", got {source.pairs_per_iteration}; null makes all",
        )


def ranges_have_a_width(config: RunKeys) -> Iterator[Problem]:
    """Check that the bounds of a teacher's scores are in order."""
    teacher = None if config.pairs.source.kind == "offline" else config.pairs.source.teacher
    if teacher is not None and teacher.bounds is not None and teacher.bounds[0] >= teacher.bounds[1]:
        yield Problem("pairs.source.teacher.bounds", f"expected a low end and a higher one, got {list(teacher.bounds)}")


def pretraining_has_data(config: RunKeys) -> Iterator[Problem]:
    """Check that there are stored pairs for pretraining, which comes before the first step."""
    block = config.options
    if not isinstance(block, PreferenceOptions):
        return
    if block.pretraining is not None and config.pairs.source.kind == "online":
        yield Problem(
            f"{config.algorithm}.pretraining",
            "is on stored pairs, and pairs.source has kind online; set it to null or choose offline or both",
        )


def references_are_read(config: RunKeys) -> Iterator[Problem]:
    """Check that a reference is set if, and only if, the loss needs one."""
    kind, reference = config.dpo.loss.kind, config.dpo.reference.kind
    if kind in REFERENCE_FREE and reference != "none":
        yield Problem("dpo.reference", f"{kind} compares with no reference, got {reference}; set it to {{kind: none}}")
    if isinstance(config.dpo.loss, KTOLoss) and reference == "none":
        yield Problem("dpo.reference", f"{kind} measures the divergence from a reference, got none; choose frozen")


def averages_stay_averages(config: RunKeys) -> Iterator[Problem]:
    """Refuse ``length_normalize: false`` for losses that always average."""
    if config.dpo.loss.kind in AVERAGED and config.dpo.length_normalize is False:
        yield Problem("dpo.length_normalize", f"{config.dpo.loss.kind} is made of averages, got false; set it to null")


def kto_stands_alone(config: RunKeys) -> Iterator[Problem]:
    """Refuse terms about chosen segments with losses of single segments, such as KTO."""
    for key in ("nll_coef", "value") if isinstance(config.dpo.loss, KTOLoss) else ():
        if getattr(config.dpo, key) is not None:
            yield Problem(f"dpo.{key}", f"{config.dpo.loss.kind} has no such term; set it to null")


def tails_are_of_sums(config: RunKeys) -> Iterator[Problem]:
    """Refuse ``ld_alpha`` for averages and for losses of single segments."""
    dpo = config.dpo
    averages = (
        dpo.length_normalize or dpo.loss.kind in AVERAGED or (dpo.loss.kind == "ipo" and dpo.length_normalize is None)
    )
    if dpo.ld_alpha != 1 and (averages or isinstance(dpo.loss, KTOLoss)):
        what = "single segments" if isinstance(dpo.loss, KTOLoss) else "averages"
        yield Problem("dpo.ld_alpha", f"is for sums over pairs, got {dpo.loss.kind} of {what}; set it to 1")


def weights_are_of_pairs(config: RunKeys) -> Iterator[Problem]:
    """Refuse pair weights for losses without pairs, and for policies without a closed form of the weight."""
    dpo = config.dpo
    if not dpo.use_weighting:
        return
    if isinstance(dpo.loss, KTOLoss) or dpo.loss.kind in SORTED:
        what = "of single segments" if isinstance(dpo.loss, KTOLoss) else "of a sorted batch"
        yield Problem("dpo.use_weighting", f"weighs the losses of pairs, got {dpo.loss.kind} {what}; set it to false")
    if dpo.distribution.kind == "tanh_normal":
        yield Problem("dpo.use_weighting", "needs a density with a closed mean, got tanh_normal; choose kind normal")


def sorted_batches_have_no_ties(config: RunKeys) -> Iterator[Problem]:
    """Refuse ties for losses that sort their batch."""
    source, kind = config.pairs.source, config.dpo.loss.kind
    if kind in SORTED and source.kind != "offline" and source.ties == "keep":
        yield Problem("pairs.source.ties", f"{kind} sorts its batch and has no place for ties; set it to drop")


_COMMON: tuple[Rule, ...] = (
    starts_can_be_set,
    rewards_have_one_unit,
    lengths_have_a_range,
    there_are_enough_pairs,
    ranges_have_a_width,
    pretraining_has_data,
    played_groups_fit_into_memory,
    pairs_fit_into_memory,
)
DPO_RULES: tuple[Rule, ...] = (
    *_COMMON,
    references_are_read,
    averages_stay_averages,
    kto_stands_alone,
    tails_are_of_sums,
    weights_are_of_pairs,
    sorted_batches_have_no_ties,
)
CPL_RULES: tuple[Rule, ...] = _COMMON
