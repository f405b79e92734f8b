"""Searches: one YAML file that names a base configuration and the keys to optimise."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from tesserl_configs.base import Absent, Block, Count, CountFromZero, Name, Real, Seed, StepsFromZero, Text
from tesserl_configs.btr import OPTIONS_TAG
from tesserl_configs.changes import Change, base_file, changes_of_command_line, load_changed
from tesserl_configs.diff import flat_data
from tesserl_configs.errors import ConfigError, shown
from tesserl_configs.messages import CHOICES_TAG
from tesserl_configs.schema import RunConfig
from tesserl_configs.sweep_file import directory_name, place_of, read_block

MOST_CORNERS = 1_024
"""Largest number of corners, all of which are checked before a search starts: 10 keys with two ends each."""

REFUSED = {
    "seed": "every trial has the same ones; set them with seeds of the search",
    "name": "every trial has its own; set it with name of the search",
}
NOT_SEARCHED = ("total_steps", "evaluation", "early_stopping")
"""Keys that determine the value of a trial, and so must be equal in all trials."""


class Range(Block):
    """All numbers between two ends, or all whole numbers if the key takes whole numbers."""

    low: Real = Field(description="Smallest value.")
    high: Real = Field(description="Largest value.")
    log: bool = Field(
        default=False, description="Draw values evenly on a logarithmic scale, as for learning rates; low must be > 0."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"expected low < high, got {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"expected low > 0 with log, got {self.low:g}")
        return self


class MedianPruning(Block):
    """Stop a trial whose best evaluation is below the median of the others at the same step."""

    kind: Literal["median"] = "median"
    startup_trials: CountFromZero = Field(
        default=5, description="Number of trials that must end before any is stopped, >= 0."
    )
    warmup_steps: StepsFromZero = Field(
        default=0, description="Number of environment steps before which no trial is stopped, >= 0."
    )


def _form(value: Any) -> str:
    return OPTIONS_TAG if isinstance(value, dict | Range) else CHOICES_TAG


def _range_or_choices(value: Any) -> Any:
    if not isinstance(value, dict | list | tuple | Range):
        raise ValueError(f"expected {{low, high, log}} or a list of choices, got {shown(value)}")
    return value


Choices = Annotated[tuple[Any, ...], Field(min_length=2, max_length=1_000)]
Dimension = Annotated[
    Annotated[Range, Tag(OPTIONS_TAG)] | Annotated[Choices, Tag(CHOICES_TAG)],
    Discriminator(_form),
    BeforeValidator(_range_or_choices),
]


class SearchConfig(Block):
    """The file of a search; every trial is a run of the base configuration with some keys changed."""

    name: Name | None = Field(default=None, description="Name of the search and of its directory; null: the file's.")
    config: Text = Field(description="File that the trials start from, relative to the file of the search.")
    set: dict[str, Any] = Field(
        default_factory=dict, description="Keys of the base to change in all trials, dotted as for --set."
    )
    space: dict[str, Dimension] = Field(
        min_length=1,
        description=(
            "Keys to search, dotted as for --set, each with {low, high, log} for numbers or a list of values to "
            "choose from."
        ),
    )
    trials: Count = Field(
        description="Total number of trials, >= 1; a later call with a larger number continues the search."
    )
    objective: Literal["final", "mean"] = Field(
        default="final",
        description=(
            "Number to maximise. final: return of the final evaluation; mean: mean of all evaluations during "
            "training, which also rewards learning fast."
        ),
    )
    pruning: Annotated[MedianPruning | Absent, Field(discriminator="kind")] = Field(
        default=MedianPruning(), description="Rule that stops trials early."
    )
    seeds: tuple[Seed, ...] = Field(
        default=(1,),
        min_length=1,
        max_length=1_000,
        description=(
            "Seeds of the runs of every trial, >= 0, all different; the value of a trial is the mean over them."
        ),
    )
    sampler_seed: Seed = Field(default=1, description="Seed of the sampler that proposes values, >= 0.")


@dataclass(frozen=True)
class Search:
    """A search whose space has been checked."""

    name: str
    config: SearchConfig
    start: Path
    """File that the trials start from."""

    changes: tuple[Change, ...]
    """Keys that are the same in all trials."""

    whole: frozenset[str]
    """Keys of the space that take whole numbers."""

    places: Mapping[str, str] = field(repr=False)
    """Key of the space -> the place for messages about it."""

    def trial(self, values: Mapping[str, Any], name: str) -> RunConfig:
        """Return the configuration of a trial.

        Args:
            values: key of the space -> its value.
            name: name of the trial.

        Raises:
            ConfigError: the values do not go together.
        """
        changed = (Change.to(key, value, self.places[key]) for key, value in values.items())
        config = load_changed(self.start, [*self.changes, *changed])
        return config.model_copy(update={"name": f"{self.name}-{name}", "seed": self.config.seeds[0]})

    def base(self) -> dict[str, Any]:
        """Return the base's values of the keys of the space; empty if they lie outside the space."""
        found = flat_data(self.trial({}, "base"))
        values = {key: found.get(key) for key in self.config.space}
        return values if all(_holds(it, values[key]) for key, it in self.config.space.items()) else {}

    def corners(self) -> Iterator[dict[str, Any]]:
        """Yield every combination of the ends of ranges and of all choices."""
        ends = [_ends(dimension, key in self.whole) for key, dimension in self.config.space.items()]
        return (dict(zip(self.config.space, values, strict=True)) for values in itertools.product(*ends))


def _holds(dimension: Range | tuple[Any, ...], value: Any) -> bool:
    if isinstance(dimension, Range):
        return isinstance(value, int | float) and dimension.low <= value <= dimension.high
    return value in dimension


def _ends(dimension: Range | tuple[Any, ...], whole: bool) -> tuple[Any, ...]:
    if not isinstance(dimension, Range):
        return dimension
    return (int(dimension.low), int(dimension.high)) if whole else (dimension.low, dimension.high)


def load_search(
    path: str | Path, overrides: Iterable[str] = (), *, name: str | None = None, trials: int | None = None
) -> Search:
    """Read a search, and check every corner of its space.

    Args:
        path: a YAML file, see ``SearchConfig``.
        overrides: ``a.b=value`` each, for every trial.
        name: of the search, in place of the file's.
        trials: their number, in place of the file's.

    Raises:
        ConfigError: the file or a corner of the space is wrong; every problem has its place.
    """
    path = Path(path)
    document, config = read_block(path, SearchConfig)
    config = config if trials is None else config.model_copy(update={"trials": trials})
    places = {key: place_of(path, document, f"space.{key}") for key in config.space}
    fixed = [
        Change.to(key, value, place_of(path, document, f"set.{key}").removesuffix(f".{key}"))
        for key, value in config.set.items()
    ]
    fixed += changes_of_command_line(overrides)
    if len(set(config.seeds)) < len(config.seeds):
        raise ConfigError(f"{place_of(path, document, 'seeds')}: a seed is repeated; write each one once")
    if problems := [*_refusals(config, fixed, places)]:
        raise ConfigError(*problems)
    start = base_file(path, config.config, place=place_of(path, document, "config"), kind="search")
    above = {key: place.removesuffix(f".{key}") for key, place in places.items()}
    found = Search(directory_name(path, name or config.name), config, start, tuple(fixed), frozenset(), above)
    search = replace(found, whole=frozenset(_whole(found, places)))
    _check_corners(search)
    return search


def _refusals(config: SearchConfig, fixed: Iterable[Change], places: Mapping[str, str]) -> Iterator[str]:
    """Yield problems of the space: keys of the search, keys that judge trials, duplicates, too many corners."""
    for change in fixed:
        if change.key in REFUSED:
            yield f"{change.place}: {change.key}: {REFUSED[change.key]}"
    for key, dimension in config.space.items():
        if key in REFUSED:
            yield f"{places[key]}: {REFUSED[key]}"
        elif key.partition(".")[0] in NOT_SEARCHED:
            yield f"{places[key]}: trials are judged by it, so it must be the same in all of them; write it in set"
        if not isinstance(dimension, Range) and len(set(map(json.dumps, dimension))) < len(dimension):
            yield f"{places[key]}: a choice is repeated; write each one once"
    number = math.prod(2 if isinstance(it, Range) else len(it) for it in config.space.values())
    if number > MOST_CORNERS:
        first, place = next(iter(places.items()))
        yield (
            f"{place.removesuffix('.' + first)}: expected at most {MOST_CORNERS:,} corners "
            f"(combinations of ends and choices), as all are checked, got {number:,}; search fewer keys at once"
        )


def _whole(search: Search, places: Mapping[str, str]) -> Iterator[str]:
    """Yield the ranges of keys that take whole numbers; refuse ranges of keys that take no number."""
    ranges = {key: it for key, it in search.config.space.items() if isinstance(it, Range)}
    corner = next(search.corners())
    corner |= {key: int(it.low) for key, it in ranges.items() if it.low.is_integer()}
    values = flat_data(search.trial(corner, "corner"))
    for key, it in ranges.items():
        if isinstance(values.get(key), int):
            if not it.high.is_integer():
                raise ConfigError(f"{places[key]}.high: expected a whole number, got {it.high:g}")
            yield key


def _check_corners(search: Search) -> None:
    """Check the configuration of every corner; raise one error, which reports a problem of many corners once."""
    found: dict[str, list[dict[str, Any]]] = {}
    for corner in search.corners():
        try:
            config = search.trial(corner, "trial-0000")
        except ConfigError as error:
            for message in error.messages:
                found.setdefault(message, []).append(corner)
        else:
            if config.early_stopping is not None and search.config.objective == "mean":
                raise ConfigError(
                    "early_stopping: ends trials at different steps, so that the means of their evaluations cannot be "
                    "compared; write early_stopping: null in set, or objective: final"
                )
    if found:
        raise ConfigError(*(_with_corner(message, corners) for message, corners in found.items()))


def _with_corner(message: str, corners: list[dict[str, Any]]) -> str:
    """Return a message with the first corner that has it."""
    values = ", ".join(f"{key}={json.dumps(value)}" for key, value in corners[0].items())
    more = f", and {len(corners) - 1:,} more" if len(corners) > 1 else ""
    return f"{message} (corner {values}{more})"
