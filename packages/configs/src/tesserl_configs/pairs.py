"""``pairs:``, where dpo and cpl have their preferences from."""

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
    length: Count = Field(default=64, description="Steps of a segment, >= 1 (CPL: 64; B-Pref: 50).")


class VariableSegments(Block):
    """Pieces of random length, from anywhere in an episode."""

    kind: Literal["variable"] = "variable"
    min_length: Count = Field(default=32, description="Steps of the shortest segment, >= 1.")
    max_length: Count = Field(default=64, description="Steps of the longest segment, at least min_length.")


Segments = Annotated[EpisodeSegments | FixedSegments | VariableSegments, Field(discriminator="kind")]

# --- teacher -----------------------------------------------------------------------------------------------------


class TeacherConfig(Block):
    """A scripted teacher with the weaknesses of people (Lee et al. 2021, B-Pref, arXiv:2111.03026), here with none.

    Its thresholds are fractions of a range of scores, so that the scale of rewards does not matter.
    """

    beta: Positive | None = Field(
        default=None,
        description="Slope of the probability to prefer a score, in 1 / range, > 0 (noisy: 10); null: the larger one.",
    )
    discount: Fraction = Field(
        default=1.0,
        description="Weight of a step by that of the step after it, in [0, 1] (myopic: 0.9); 1: all the same.",
    )
    skip: Real | None = Field(
        default=None,
        description="Pairs without a score above this fraction of the range get no label (skip: 0.1); null: none.",
    )
    equal: NonNegative = Field(
        default=0.0, description="Scores that differ by less than this fraction of the range tie, >= 0 (equal: 0.1)."
    )
    mistake: Fraction = Field(default=0.0, description="Probability of a wrong label, in [0, 1] (mistake: 0.1).")
    bounds: tuple[Real, Real] | None = Field(
        default=None,
        description="Low and high end of the range, in reward units; null: the 5 and 95 % quantiles of the segments.",
    )


# --- source ------------------------------------------------------------------------------------------------------

_PATH = "Directory of stored pairs, as `tesserl pairs` writes it, labelled by a teacher or by a person."


class OfflinePairs(Block):
    """Stored pairs; nothing is collected, and a step of the run is a gradient update."""

    kind: Literal["offline"] = "offline"
    path: Text = Field(description=_PATH)


class OnlineOptions(Block):
    """Options of pairs that are made of what the policy does now."""

    num_groups: Count = Field(default=16, description="Starts of an iteration, >= 1.")
    group_size: GroupSize = Field(default=2, description="Trajectories of each start, >= 2.")
    starts: Starts = Field(
        default_factory=RepeatedStarts,
        description="Common start of the trajectories of a group; it is verified.",
    )
    same_start: bool = Field(
        default=True, description="Compare trajectories of one start alone; false: any two of the iteration."
    )
    pairs_per_iteration: Count | None = Field(
        default=None, description="Pairs made of an iteration's trajectories, >= 1; null: all that there are."
    )
    buffer_size: Count = Field(default=256, description="Pairs kept, the oldest leave first, >= 1.")
    num_epochs: Count = Field(default=4, description="Passes over the kept pairs in an iteration, >= 1.")
    segments: Segments = Field(default_factory=EpisodeSegments, description="Pieces of episodes that are compared.")
    score_discount: Fraction = Field(
        default=1.0, description="Discount of one step in the score of a segment, in [0, 1]; 1: the sum of rewards."
    )
    min_margin: NonNegative = Field(
        default=0.0, description="Pairs whose scores differ less are not made, in reward units, >= 0."
    )
    ties: Literal["drop", "keep"] = Field(
        default="drop", description="Ties, of the score or of the teacher, are left out, or kept with the label 0.5."
    )
    teacher: TeacherConfig | None = Field(
        default=None, description="Scripted teacher that prefers one of two segments; null: the larger score wins."
    )


class OnlinePairs(OnlineOptions):
    """Pairs of what the policy does now, in turns with updates."""

    kind: Literal["online"] = "online"


class MixedPairs(OnlineOptions):
    """Stored pairs and pairs of what the policy does now."""

    kind: Literal["both"] = "both"
    path: Text = Field(description=_PATH)
    offline_fraction: FractionBelowOne = Field(
        default=0.5, description="Share of stored pairs in each batch, in [0, 1)."
    )


PairSource = Annotated[OfflinePairs | OnlinePairs | MixedPairs, Field(discriminator="kind")]


class PairsConfig(Block):
    """Pairs of trajectory segments, one of which was preferred."""

    source: PairSource = Field(default_factory=OnlinePairs, description="Stored pairs, fresh ones, or both.")
    holdout_fraction: FractionBelowOne = Field(
        default=0.1, description="Share of the pairs that is kept for measuring alone, in [0, 1)."
    )
