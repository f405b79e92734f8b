"""``initial_weights:``, the run that provides the initial network, or parts of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Discriminator, Field, Tag, create_model

from tesserl_configs.base import Block, Text
from tesserl_configs.btr import OPTIONS_TAG
from tesserl_configs.nn import Part

PATH_TAG = "a path"


class _PartialWeights(Block):
    """Parts of another run's network; the other parts are initialised as usual."""

    parts: tuple[Part, ...] = Field(
        min_length=1, description="Parts to load, by their names in nn.freeze; both networks must have them."
    )

    @property
    def run(self) -> str:
        """Return the key ``from``, a keyword that cannot name an attribute."""
        return str(getattr(self, "from"))


if TYPE_CHECKING:
    PartialWeightsConfig = _PartialWeights
else:
    PartialWeightsConfig = create_model(
        "PartialWeightsConfig",
        __base__=_PartialWeights,
        __doc__=_PartialWeights.__doc__,
        __module__=__name__,
        **{"from": (Text, Field(description="Run, or checkpoint, to load the parts from."))},
    )


def _path_or_options(value: Any) -> str:
    return PATH_TAG if isinstance(value, str) else OPTIONS_TAG


InitialWeights = Annotated[
    Annotated[Text, Tag(PATH_TAG)] | Annotated[PartialWeightsConfig, Tag(OPTIONS_TAG)], Discriminator(_path_or_options)
]


def weights_source(weights: str | PartialWeightsConfig) -> tuple[str, tuple[Part, ...]]:
    """Return the run to load weights from, and the parts to load; no parts mean the whole network."""
    return (weights, ()) if isinstance(weights, str) else (weights.run, weights.parts)
