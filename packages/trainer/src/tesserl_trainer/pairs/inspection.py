"""Inspect the contents and the integrity of a store of pairs."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tesserl_preference_data import PreferencePairs, StoreError, load_pairs, read_labels
from tesserl_preference_data.files import json_lines, read_manifest, verify_file

NAMED = 10
"""Most damaged pairs that a message names."""

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def inspect_store(path: Path) -> dict[str, Any]:
    """Read and verify a whole store.

    Args:
        path: directory of the pairs.

    Returns:
        ``files``, ``bytes``, ``pairs``, ``labelled``, ``unlabelled``, ``ties``, ``segments``, ``frames``, ``steps`` (by
        key, shape and dtype), ``lengths`` and ``margins`` (quantiles), ``sources`` (pairs of each judge),
        ``agreement`` (by judge: the share of labels that prefer the segment of the larger score; null without
        scores), ``people`` (the choices in ``labels.jsonl``).

    Raises:
        StoreError: a file is missing or damaged, or a pair holds numbers that are not finite; it names the pairs.
    """
    entries = read_manifest(path)
    _verify(path, entries)
    pairs = load_pairs(path, unlabelled=True, verify=False)
    _check_numbers(path, pairs)
    is_labelled = ~pairs.label.isnan()
    used = torch.unique(torch.cat([pairs.chosen_segment, pairs.rejected_segment]))
    margins = pairs.margin[is_labelled & pairs.margin.isfinite()]
    steps = pairs.pool.blocks[0].steps
    return {
        "files": len(entries),
        "bytes": sum(entry["size"] for entry in entries),
        "pairs": len(pairs),
        "labelled": int(is_labelled.sum()),
        "unlabelled": int((~is_labelled).sum()),
        "ties": int((pairs.label == 0.5).sum()),
        "segments": len(used),
        "frames": ("extra", "frame") in pairs.pool.keys,
        "steps": {_name(key): f"{list(steps[key].shape[1:])} {steps[key].dtype}" for key in pairs.pool.keys},
        "lengths": _quantiles(pairs.pool.length[used]),
        "margins": _quantiles(margins),
        "sources": dict(Counter(pairs.source)),
        "agreement": {source: _agreement(pairs, source) for source in dict.fromkeys(pairs.source)},
        "people": dict(Counter(choice for choice, _ in read_labels(path).values())),
    }


def text(report: dict[str, Any]) -> str:
    """Format a report as text."""
    lengths, margins = report["lengths"], report["margins"]
    lines = [
        f"{report['pairs']:,} pairs of {report['segments']:,} segments; {report['files']} files, "
        f"{report['bytes']:,} bytes, all as written",
        f"labels     {report['labelled']:,}, of them {report['ties']:,} ties; {report['unlabelled']:,} pairs without",
        f"lengths    {_shown(lengths)} steps",
        f"margins    {_shown(margins)}" if margins else "margins    none known",
    ]
    for source, number in report["sources"].items():
        agreement = report["agreement"][source]
        known = "" if agreement is None else f", {agreement:.1%} for the segment of the larger score"
        lines.append(f"judged by  {source}: {number:,}{known}")
    if report["people"]:
        lines.append("people     " + ", ".join(f"{choice} {number:,}" for choice, number in report["people"].items()))
    lines.append(f"pictures   {'yes' if report['frames'] else 'no: collect with --frames to have pairs labelled'}")
    lines += [f"step       {key} {layout}" for key, layout in report["steps"].items()]
    return "\n".join(lines)


def _verify(path: Path, entries: list[dict[str, Any]]) -> None:
    """Compare every file with the manifest; the error names the pairs that need a missing or damaged one."""
    damaged: dict[int, str] = {}  # segment -> reason
    wrong: list[str] = []
    num_segments = num_pairs = 0
    needed: list[tuple[int, int]] = []
    for entry in entries:
        problem = _problem(path, entry)
        if entry["kind"] == "segments":
            numbers = range(num_segments, num_segments + entry["count"])
            damaged |= dict.fromkeys(numbers, problem) if problem else {}
            num_segments = numbers.stop
        elif problem:
            wrong.append(f"pairs {num_pairs} to {num_pairs + entry['count'] - 1} cannot be read: {problem}")
            num_pairs += entry["count"]
        else:
            needed += [(line["chosen"], line["rejected"]) for _, line in json_lines(path / entry["name"])]
            num_pairs += entry["count"]
    if damaged:
        names = [number for number, both in enumerate(needed) if damaged.keys() & set(both)]
        what = _names(names) if names else "segments"
        wrong.append(f"{what} cannot be read: {'; '.join(dict.fromkeys(damaged.values()))}")
    if wrong:
        raise StoreError(f"{path}: " + "; ".join(wrong))


def _problem(path: Path, entry: dict[str, Any]) -> str:
    try:
        verify_file(path / entry["name"], entry["size"], entry["sha256"])
    except StoreError as error:
        return str(error)
    return ""


def _check_numbers(path: Path, pairs: PreferencePairs) -> None:
    bad_segments: set[int] = set()
    keys: set[str] = set()
    for block, first in zip(pairs.pool.blocks, pairs.pool.first.tolist(), strict=True):
        segment, _, index = block.layout()
        for key in pairs.pool.keys:
            entry = block.steps[key]
            if entry.is_floating_point():
                is_bad = ~entry[index].isfinite().flatten(1).all(dim=1)
                if is_bad.any():
                    bad_segments |= {number + first for number in segment[is_bad].tolist()}
                    keys.add(_name(key))
    if bad_segments:
        both = zip(pairs.chosen_segment.tolist(), pairs.rejected_segment.tolist(), strict=True)
        names = [number for number, segments in enumerate(both) if bad_segments & set(segments)]
        raise StoreError(f"{path}: {_names(names)} must hold finite numbers, got others in {', '.join(sorted(keys))}")


def _agreement(pairs: PreferencePairs, source: str) -> float | None:
    """Return the share of a judge's labels, without ties, that prefer the segment of the larger score."""
    own = torch.tensor([each == source for each in pairs.source])
    margin = pairs.margin[own & (pairs.label == 1)]
    margin = margin[margin.isfinite() & (margin != 0)]
    return float((margin > 0).double().mean()) if len(margin) else None


def _quantiles(values: Tensor) -> list[float]:
    """Return minimum, quartiles and maximum."""
    if not len(values):
        return []
    ordered = values.double().sort().values  # torch.quantile accepts at most 16 million values
    return [float(ordered[round(fraction * (len(values) - 1))]) for fraction in QUANTILES]


def _names(pairs: list[int]) -> str:
    more = f" and {len(pairs) - NAMED} more" if len(pairs) > NAMED else ""
    return f"pair{'s' * (len(pairs) != 1)} {', '.join(map(str, pairs[:NAMED]))}{more}"


def _name(key: Any) -> str:
    return key if isinstance(key, str) else "/".join(key)


def _shown(quantiles: Iterable[float]) -> str:
    least, lower, middle, upper, most = (f"{value:,.6g}" for value in quantiles)
    return f"{least} to {most}, median {middle}, quartiles {lower} and {upper}"
