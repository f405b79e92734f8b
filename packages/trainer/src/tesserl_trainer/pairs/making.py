"""Make stored pairs from episodes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from tesserl_preference_data import PreferencePairs, ScriptedTeacher, SegmentPool, cut_segments, make_pairs, save_pairs
from tesserl_preference_data.make import largest_margin, segment_scores
from tesserl_trainer.pairs.scores import Score, parse_score
from tesserl_trainer.pairs.sources import Episodes, read_episodes
from tesserl_trainer.usage import ArgumentError, TakenError

SEGMENT_LENGTHS = {"fixed": (64,), "variable": (32, 64)}
"""Default length of a segment, as in CPL and in ``pairs.source.segments`` of configurations."""

TEACHER_OPTIONS = {
    "oracle": None,
    "noisy": "beta",
    "myopic": "discount",
    "skip": "skip",
    "equal": "equal",
    "mistake": "mistake",
}


def make_store(
    sources: Sequence[str | Path],
    *,
    out: str | Path,
    num: int | None = None,
    segment: str = "episode",
    by: str = "return",
    min_margin: float = 0.0,
    same_start: bool = False,
    ties: Literal["drop", "keep"] = "drop",
    teacher: str | None = None,
    labelled: bool = True,
    value_discount: float | None = None,
    seed: int = 0,
    download: bool = False,
) -> dict[str, Any]:
    """Make pairs and write them to a store.

    Args:
        sources: stores of ``tesserl collect``, and Minari datasets as ``minari:NAME``.
        out: directory of the pairs; it must not exist.
        num: pairs to draw; None for all possible pairs. A teacher that skips, and dropped ties, leave fewer.
        segment: ``"episode"``, ``"fixed:LENGTH"`` or ``"variable:LEAST:MOST"``.
        by: score of a segment: ``"return"`` of its steps, ``"discounted:FACTOR"``; ``"to_go"`` or ``"to_go:FACTOR"``,
            the return from its first step to the end of the episode; or ``"regret:RUN"``: how much worse its actions
            are than the best ones according to the policy of a run, see `judgement_of`.
        min_margin: least difference of the scores of a pair, at least 0.
        same_start: only pair segments of episodes with the same start.
        ties: drop or keep pairs of equal score.
        teacher: ``"oracle"``, ``"noisy:BETA"`` and so on, see `ScriptedTeacher.preset`; None labels by score.
        labelled: False writes no labels, so that people can add them.
        value_discount: store returns to the end of the episode with this discount, as ``value_target``.
        seed: seed of all random draws.
        download: download Minari datasets that this machine lacks.

    Returns:
        ``path``, ``pairs``, ``segments``, ``frames``, ``source``.

    Raises:
        ArgumentError: an option is out of its range.
        ConfigError: Minari is not installed.
        StoreError: a source cannot be read.
        TakenError: ``out`` exists.
        ValueError: there are no pairs, or fewer than asked for.
    """
    if Path(out).exists():
        raise TakenError(f"{out} exists, pairs are not overwritten; name another directory")
    judge, score, lengths = _teacher(teacher), parse_score(by), _lengths(segment)
    episodes = read_episodes(sources, download=download)
    generator = torch.Generator().manual_seed(seed)
    pool = score.apply(_cut(episodes, lengths, same_start, value_discount, score, generator))
    _check_comparable(pool, sources, score.discount, min_margin, has_ties=ties == "keep" or not labelled)
    pairs = make_pairs(
        pool,
        num_pairs=num,
        discount=score.discount,
        min_margin=min_margin,
        ties=ties if labelled else "keep",  # people judge without scores
        teacher=judge,
        labelled=labelled,
        generator=generator,
    )
    if not len(pairs):  # the scores differ
        raise ValueError(
            f"{_named(sources)}: expected pairs that the teacher {teacher} tells apart, got none of {len(pool)} "
            "segments; choose another --teacher, or keep the ties with --ties keep"
        )
    save_pairs(pairs, out)
    return _report(out, pairs, has_frames=episodes.has_frames)


def _cut(
    episodes: Episodes,
    lengths: int | tuple[int, int] | None,
    same_start: bool,
    value_discount: float | None,
    score: Score,
    generator: torch.Generator,
) -> SegmentPool:
    """Cut episodes into segments; keep all entries of the episodes."""
    return cut_segments(
        episodes.trajectories,
        segment_length=lengths,
        score=score.of_steps,
        group=episodes.starts if same_start else None,
        value_discount=value_discount,
        observation_keys=episodes.keys,
        extra_keys=["frame"] if episodes.has_frames else [],
        generator=generator,
    )


def _check_comparable(
    pool: SegmentPool, sources: Sequence[str | Path], discount: float, min_margin: float, *, has_ties: bool
) -> None:
    """Refuse segments from which no pair can be made."""
    largest = largest_margin(segment_scores(pool, discount=discount), pool.group)
    if largest is None:
        raise ValueError(
            f"{_named(sources)}: expected two segments that can be compared, got {len(pool)} of as many starts; "
            "collect more episodes, or leave out --same-start"
        )
    if has_ties:
        return
    if largest == 0:
        raise ValueError(
            f"{_named(sources)}: expected segments of different scores, got {len(pool)} that all tie; "
            "keep the ties with --ties keep, choose another score with --by, or collect episodes that differ"
        )
    if largest < min_margin:
        raise ValueError(
            f"{_named(sources)}: expected scores that differ by at least --min-margin {min_margin:g}, "
            f"got a largest difference of {largest:g}; lower --min-margin"
        )


def _named(sources: Sequence[str | Path]) -> str:
    return ", ".join(map(str, sources))


def _report(out: str | Path, pairs: PreferencePairs, *, has_frames: bool) -> dict[str, Any]:
    used = torch.unique(torch.cat([pairs.chosen_segment, pairs.rejected_segment]))
    return {
        "path": str(out),
        "pairs": len(pairs),
        "segments": len(used),
        "frames": has_frames,
        "source": pairs.source[0],
    }


def _lengths(segment: str) -> int | tuple[int, int] | None:
    """Parse a segment specification into the lengths for ``cut_segments``."""
    kind, *numbers = segment.split(":")
    if kind == "episode" and not numbers:
        return None
    if kind in SEGMENT_LENGTHS:
        try:
            lengths = tuple(int(number) for number in numbers) or SEGMENT_LENGTHS[kind]
        except ValueError:
            lengths = ()
        if kind == "fixed" and len(lengths) == 1 and lengths[0] >= 1:
            return lengths[0]
        if kind == "variable" and len(lengths) == 2 and 1 <= lengths[0] <= lengths[1]:
            return lengths[0], lengths[1]
    raise ArgumentError(
        "--segment must be episode, fixed:LENGTH or variable:LEAST:MOST with 1 <= LEAST <= MOST, such as fixed:64, "
        f"got {segment!r}"
    )


def _teacher(text: str | None) -> ScriptedTeacher | None:
    """Parse a teacher such as ``noisy:5``."""
    if text is None:
        return None
    kind, _, number = text.partition(":")
    option = TEACHER_OPTIONS.get(kind)
    if kind in TEACHER_OPTIONS and not number:
        return ScriptedTeacher.preset(kind)  # type: ignore[arg-type]  # checked above
    try:
        if option is not None:
            return ScriptedTeacher.preset(kind, **{option: float(number)})  # type: ignore[arg-type]
    except ValueError as error:
        raise ArgumentError(f"--teacher {text}: {error}") from error
    raise ArgumentError(
        f"--teacher must be one of {', '.join(TEACHER_OPTIONS)}, with a number or without, got {text!r}"
    )
