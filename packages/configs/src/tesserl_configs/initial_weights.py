"""``initial_weights:``, the run whose network a run starts from, or parts of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Discriminator, Field, Tag, create_model

from tesserl_configs.base import Block, Text
from tesserl_configs.btr import OPTIONS_TAG
from tesserl_configs.nn import Part

PATH_TAG = "a path"


class _PartialWeights(Block):
    """Parts of the network of another run; the others begin as without it."""

    parts: tuple[Part, ...] = Field(
        min_length=1, description="Parts that are taken, by their names in nn.freeze; both networks must have them."
    )

    @property
    def run(self) -> str:
        """Return the key ``from``, which is no name of an attribute."""
        return str(getattr(self, "from"))


if TYPE_CHECKING:
    PartialWeightsConfig = _PartialWeights
else:
    PartialWeightsConfig = create_model(
        "PartialWeightsConfig",
        __base__=_PartialWeights,
        __doc__=_PartialWeights.__doc__,
        __module__=__name__,
        **{"from": (Text, Field(description="Run, or checkpoint of one."))},
    )


def _path_or_options(value: Any) -> str:
    return PATH_TAG if isinstance(value, str) else OPTIONS_TAG


InitialWeights = Annotated[
    Annotated[Text, Tag(PATH_TAG)] | Annotated[PartialWeightsConfig, Tag(OPTIONS_TAG)], Discriminator(_path_or_options)
]


def weights_source(weights: str | PartialWeightsConfig) -> tuple[str, tuple[Part, ...]]:
    """Return the run that weights come from, and the parts that are taken; no parts stand for the whole network."""
    return (weights, ()) if isinstance(weights, str) else (weights.run, weights.parts)
