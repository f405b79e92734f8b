"""``btr:``, the switches of Beyond The Rainbow (Clark et al. 2024, arXiv:2411.03820).

Each switch fills keys of other blocks where the file is silent; an explicit key wins. What they fill is in
`tesserl_configs.btr_switches`; what came of it is what is validated, printed and saved.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import Discriminator, Field, Tag

from tesserl_configs.base import Block, Count, Fraction, Pixels, Width
from tesserl_configs.iqn import MunchausenConfig
from tesserl_configs.schedules import NUMBER_TAG, ScheduledFraction

SWITCH_TAG, OPTIONS_TAG, ALL_TAG = "true or false", "options", "the word all"
"""Tags of the forms; no key has a blank, so that they cannot be mistaken for one in the path of an error."""


class MunchausenSwitch(MunchausenConfig):
    """``iqn.munchausen``, with the bonus of the online network."""

    log_policy: Literal["target", "online"] = Field(
        default="online", description="Network of the bonus: online (Beyond The Rainbow) or target (Munchausen paper)."
    )


class ImpalaSwitch(Block):
    """``nn.vision`` of kind impala."""

    width: Width = Field(default=2, description="Multiplies all channels, >= 1 (Beyond The Rainbow: 2).")


class MaxPoolSwitch(Block):
    """``nn.vision.pool_size``, of kind impala or cnn."""

    size: Pixels | None = Field(
        default=None,
        description=(
            "Side of the feature map after adaptive max-pooling, >= 1; null: 6 (Beyond The Rainbow), "
            "and for the 10 x 10 images of MinAtar 4, behind three stages of impala 2."
        ),
    )


class NoisySwitch(Block):
    """``nn.heads.noisy`` and ``iqn.exploration`` of kind noisy."""

    epsilon: ScheduledFraction | None = Field(
        default=None,
        description=(
            "Probability of a random action beside the noise, in [0, 1]; a number or a schedule; null: from 1 towards "
            "0.01 and 0 from half of total_steps on (Beyond The Rainbow)."
        ),
    )


class PrioritizedSwitch(Block):
    """``replay`` of kind prioritized."""

    alpha: Fraction = Field(
        default=0.2, description="Exponent of priorities, in [0, 1]; 0: uniform (Beyond The Rainbow: 0.2)."
    )
    weight_exponent: Literal["beta", "alpha"] = Field(
        default="alpha", description="Exponent of the importance weights: alpha (Beyond The Rainbow) or replay.beta."
    )


def _switch_or_options(value: Any) -> str:
    return SWITCH_TAG if isinstance(value, bool) else OPTIONS_TAG


def _switch_or_number(value: Any) -> str:
    return SWITCH_TAG if isinstance(value, bool) else NUMBER_TAG


def _word_or_options(value: Any) -> str:
    return ALL_TAG if isinstance(value, str) else OPTIONS_TAG


Options = TypeVar("Options", bound=Block)
Switch = Annotated[bool, Tag(SWITCH_TAG)]
SwitchOr = Annotated[Switch | Annotated[Options, Tag(OPTIONS_TAG)], Discriminator(_switch_or_options)]
"""True or false, or a block of options, whose defaults true stands for."""
SwitchOrCount = Annotated[Switch | Annotated[Count, Tag(NUMBER_TAG)], Discriminator(_switch_or_number)]


def options_of(setting: bool | Options, block: type[Options]) -> Options | None:
    """Return the block of a switch: its defaults for true, None for false."""
    if isinstance(setting, bool):
        return block() if setting else None
    return setting


class BTRConfig(Block):
    """Components of Beyond The Rainbow, each alone or all together, on top of IQN."""

    all: bool = Field(
        default=False,
        description=(
            "The published recipe: every switch that is not written here but layer_norm, and its hyper-parameters "
            "(discount 0.997, 8 fractions, hard target every 32,000 steps, Adam 1e-4, warm-up 200,000 steps)."
        ),
    )
    munchausen: SwitchOr[MunchausenSwitch] = Field(default=False, description="The Munchausen target: iqn.munchausen.")
    impala: SwitchOr[ImpalaSwitch] = Field(default=False, description="The encoder of IMPALA: nn.vision.")
    max_pool: SwitchOr[MaxPoolSwitch] = Field(
        default=False, description="Adaptive max-pooling behind the last convolution: nn.vision.pool_size."
    )
    spectral_norm: bool = Field(
        default=False,
        description="Spectral normalisation: nn.vision.spectral_norm, residual of kind impala, all of kind cnn.",
    )
    noisy: SwitchOr[NoisySwitch] = Field(
        default=False, description="Noisy layers that explore: nn.heads.noisy and iqn.exploration."
    )
    layer_norm: bool = Field(
        default=False,
        description="LayerNorm in the heads and the perceptron of vectors: an option of its code, not of its recipe.",
    )
    dueling: bool = Field(default=False, description="Value and advantage streams: nn.heads.dueling.")
    prioritized: SwitchOr[PrioritizedSwitch] = Field(default=False, description="Prioritised replay: replay.")
    n_step: SwitchOrCount = Field(default=False, description="Rewards summed: iqn.num_steps; true: 3, or a number.")
    vector_environments: SwitchOrCount = Field(
        default=False,
        description=(
            "N environments and one update of 4 N transitions for each step of all: environment.num_envs, "
            "iqn.update_interval, iqn.batch_size; true: as many as environment.num_envs says, else 64, or a number."
        ),
    )


BTR = Annotated[
    Annotated[Literal["all"], Tag(ALL_TAG)] | Annotated[BTRConfig, Tag(OPTIONS_TAG)], Discriminator(_word_or_options)
]
"""``all`` stands for ``{all: true}``."""
