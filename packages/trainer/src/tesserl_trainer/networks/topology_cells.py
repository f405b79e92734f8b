"""List the cells of the catalogue: every combination of network family, fusion, encoder, trunk and streams."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tesserl_configs import ConfigError, nn_rules
from tesserl_configs.fusion import Fusion, Layout, Trunk, VectorTokens
from tesserl_configs.introspection import blocks_in, kinds_of
from tesserl_configs.nn import NNConfig, Stream
from tesserl_configs.vision import Vision

FAMILIES = {"quantile": ("advantage", "value"), "policy": ("policy", "value")}
"""Families of networks -> the streams of their heads."""
ALGORITHMS = {"quantile": "iqn", "policy": "ppo"}
"""One algorithm of each family, for validation rules that depend on the algorithm."""

Options = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Cell:
    """One combination."""

    family: str
    fusion: str
    """Kind of the fusion; if it has layouts, kind, layout and kind of the vector's tokens, separated by ``/``."""

    vision: str
    trunk: str
    streams: tuple[str, str]
    """Kinds of the streams of `FAMILIES`."""

    @property
    def is_duplicate(self) -> bool:
        """Return whether another cell is the same network: without fusion there is no trunk to choose."""
        return self.fusion == "none" and self.trunk != kinds(Trunk)[0]

    def block(self, options: Options, sizes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the ``nn:`` block of this combination.

        Args:
            options: keys of the block of a kind, by part and kind, e.g. ``{"vision.vit": {"patch_size": 4}}``; parts
                are ``vision``, ``vector``, ``fusion``, ``layout``, ``trunk`` and ``stream``.
            sizes: further keys of ``heads``.
        """
        fusion, *layout = self.fusion.split("/")
        block = _block("fusion", fusion, options)
        if fusion != "none":
            block["trunk"] = _block("trunk", self.trunk, options)
        if layout:
            block["layout"] = _block("layout", layout[0], options)
        if layout[1:]:
            block["layout"]["vector_tokens"] = _block("tokens", layout[1], options)
        heads = dict(
            zip(FAMILIES[self.family], (_block("stream", kind, options) for kind in self.streams), strict=True)
        )
        return {
            "vision": _block("vision", self.vision, options),
            "vector": _block("vector", "mlp", options),
            "fusion": block,
            "heads": {**heads, **({"dueling": True} if self.family == "quantile" else {}), **(sizes or {})},
        }

    def config(self, options: Options, sizes: Mapping[str, Any] | None = None) -> NNConfig:
        """Return the validated ``nn:`` block."""
        config = NNConfig.model_validate(self.block(options, sizes))
        problems = list(nn_rules.check(config, ALGORITHMS[self.family]))
        if problems:
            raise ConfigError(*problems)
        return config


def cells() -> Iterator[Cell]:
    """Yield every combination of the schema's unions, including duplicates."""
    streams = itertools.product(kinds(Stream), kinds(Stream))
    parts = itertools.product(FAMILIES, fusions(), kinds(Vision), kinds(Trunk), streams)
    return (Cell(family, fusion, vision, trunk, pair) for family, fusion, vision, trunk, pair in parts)


def fusions() -> list[str]:
    """Return every kind of fusion with each of its layouts."""
    names = []
    for block in blocks_in(Fusion):
        [kind] = kinds_of(block)
        names += [f"{kind}/{layout}" for layout in _layouts()] if "layout" in block.model_fields else [kind]
    return names


def kinds(union: Any) -> list[str]:
    """Return the kinds of a tagged union, in the order of the schema."""
    return [kind for block in blocks_in(union) for kind in kinds_of(block)]


def _layouts() -> Iterator[str]:
    for block in blocks_in(Layout):
        [kind] = kinds_of(block)
        if "vector_tokens" in block.model_fields:
            yield from (f"{kind}/{tokens}" for tokens in kinds(VectorTokens))
        else:
            yield kind


def _block(part: str, kind: str, options: Options) -> dict[str, Any]:
    return {"kind": kind, **options.get(f"{part}.{kind}", {})}
