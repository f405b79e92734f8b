"""``pairs:``, the source of preferences for dpo and cpl."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tesserl_configs.base import (
    Block,
    Count,
    Fraction,
    FractionBelowOne,
    GroupSize,
    NonNegative,
    Positive,
    Real,
    Text,
)
from tesserl_configs.starts import RepeatedStarts, Starts

# --- segments: what is compared ----------------------------------------------------------------------------------


class EpisodeSegments(Block):
    """Whole episodes, of any length."""

    kind: Literal["episode"] = "episode"


class FixedSegments(Block):
    """Pieces of one length, from anywhere in an episode (Christiano et al. 2017, arXiv:1706.03741)."""

    kind: Literal["fixed"] = "fixed"
    length: Count = Field(default=64, description="Number of steps in a segment, >= 1 (CPL: 64; B-Pref: 50).")


class VariableSegments(Block):
    """Pieces of random length, from anywhere in an episode."""

    kind: Literal["variable"] = "variable"
    min_length: Count = Field(default=32, description="Number of steps in the shortest segment, >= 1.")
    max_length: Count = Field(default=64, description="Number of steps in the longest segment, at least min_length.")


Segments = Annotated[EpisodeSegments | FixedSegments | VariableSegments, Field(discriminator="kind")]

# --- teacher -----------------------------------------------------------------------------------------------------


class TeacherConfig(Block):
    """A scripted teacher that can imitate human weaknesses (Lee et al. 2021, B-Pref, arXiv:2111.03026).

    The defaults have none of them. Thresholds are fractions of a range of scores, so they do not depend on the scale of
    the rewards.
    """

    beta: Positive | None = Field(
        default=None,
        description=(
            "Slope of the probability to prefer a score, in 1 / range, > 0 (noisy: 10); null: always prefer the "
            "larger score."
        ),
    )
    discount: Fraction = Field(
        default=1.0,
        description="Weight of a step divided by that of the next step, in [0, 1] (myopic: 0.9); 1: equal weights.",
    )
    skip: Real | None = Field(
        default=None,
        description=(
            "Give no label to pairs without a score above this fraction of the range (skip: 0.1); null: label all "
            "pairs."
        ),
    )
    equal: NonNegative = Field(
        default=0.0,
        description="Let scores tie if they differ by less than this fraction of the range, >= 0 (equal: 0.1).",
    )
    mistake: Fraction = Field(default=0.0, description="Probability of a wrong label, in [0, 1] (mistake: 0.1).")
    bounds: tuple[Real, Real] | None = Field(
        default=None,
        description=(
            "Low and high end of the range, in reward units; null: the 5 % and 95 % quantiles of the segments' scores."
        ),
    )


# --- source ------------------------------------------------------------------------------------------------------

_PATH = "Directory of stored pairs, as written by `tesserl pairs` and labelled by a teacher or a person."


class OfflinePairs(Block):
    """Stored pairs only; nothing is collected, and a step of the run is a gradient update."""

    kind: Literal["offline"] = "offline"
    path: Text = Field(description=_PATH)


class OnlineOptions(Block):
    """Options of pairs made from trajectories of the current policy."""

    num_groups: Count = Field(default=16, description="Number of starts per iteration, >= 1.")
    group_size: GroupSize = Field(default=2, description="Number of trajectories from each start, >= 2.")
    starts: Starts = Field(
        default_factory=RepeatedStarts,
        description=(
            "Start that the trajectories of a group have in common; the trainer verifies that it is the same."
        ),
    )
    same_start: bool = Field(
        default=True, description="Compare only trajectories from the same start; false: any two of the iteration."
    )
    pairs_per_iteration: Count | None = Field(
        default=None,
        description="Number of pairs made from an iteration's trajectories, >= 1; null: all possible pairs.",
    )
    buffer_size: Count = Field(default=256, description="Number of pairs kept, >= 1; the oldest are removed first.")
    num_epochs: Count = Field(default=4, description="Number of passes over the kept pairs per iteration, >= 1.")
    segments: Segments = Field(default_factory=EpisodeSegments, description="Segments of episodes that are compared.")
    score_discount: Fraction = Field(
        default=1.0, description="Discount of one step in the score of a segment, in [0, 1]; 1: the sum of rewards."
    )
    min_margin: NonNegative = Field(
        default=0.0, description="Smallest difference between the scores of a pair, in reward units, >= 0."
    )
    ties: Literal["drop", "keep"] = Field(
        default="drop",
        description=(
            "Treatment of pairs that tie by score or for the teacher. drop: leave them out; keep: label them 0.5."
        ),
    )
    teacher: TeacherConfig | None = Field(
        default=None, description="Scripted teacher that chooses the preferred segment; null: the larger score wins."
    )


class OnlinePairs(OnlineOptions):
    """Pairs from the current policy, collected in turns with updates."""

    kind: Literal["online"] = "online"


class MixedPairs(OnlineOptions):
    """Stored pairs, and pairs from the current policy."""

    kind: Literal["both"] = "both"
    path: Text = Field(description=_PATH)
    offline_fraction: FractionBelowOne = Field(
        default=0.5, description="Fraction of stored pairs in each batch, in [0, 1)."
    )


PairSource = Annotated[OfflinePairs | OnlinePairs | MixedPairs, Field(discriminator="kind")]


class PairsConfig(Block):
    """Pairs of trajectory segments of which one is preferred."""

    source: PairSource = Field(
        default_factory=OnlinePairs, description="Source of the pairs: stored, from the current policy, or both."
    )
    holdout_fraction: FractionBelowOne = Field(
        default=0.1, description="Fraction of the pairs that is held out of training for evaluation, in [0, 1)."
    )
