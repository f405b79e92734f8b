"""``btr:``, the switches of Beyond The Rainbow (Clark et al. 2024, arXiv:2411.03820).

Each switch fills in keys of other blocks that the file does not set; `tesserl_configs.btr_switches` lists them. The
filled configuration is validated, printed and saved.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import Discriminator, Field, Tag

from tesserl_configs.base import Block, Count, Fraction, Pixels, Width
from tesserl_configs.iqn import MunchausenConfig
from tesserl_configs.schedules import NUMBER_TAG, ScheduledFraction

SWITCH_TAG, OPTIONS_TAG, ALL_TAG = "true or false", "options", "the word all"
"""Tags of the forms. They contain blanks, so that they differ from every key in the path of an error."""


class MunchausenSwitch(MunchausenConfig):
    """Set ``iqn.munchausen``, with the bonus of the online network."""

    log_policy: Literal["target", "online"] = Field(
        default="online",
        description=(
            "Network whose log-policy gives the bonus: online (Beyond The Rainbow) or target (Munchausen paper)."
        ),
    )


class ImpalaSwitch(Block):
    """Set ``nn.vision`` of kind impala."""

    width: Width = Field(default=2, description="Factor of all channels, >= 1 (Beyond The Rainbow: 2).")


class MaxPoolSwitch(Block):
    """Set ``nn.vision.pool_size`` of kind impala or cnn."""

    size: Pixels | None = Field(
        default=None,
        description=(
            "Side of the feature map after adaptive max-pooling, >= 1; null: 6 (Beyond The Rainbow), but for the 10 x "
            "10 images of MinAtar 4 with cnn and 2 with impala."
        ),
    )


class NoisySwitch(Block):
    """Set ``nn.heads.noisy``, and ``iqn.exploration`` of kind noisy."""

    epsilon: ScheduledFraction | None = Field(
        default=None,
        description=(
            "Probability of a random action in addition to the noise, in [0, 1]; a number or a schedule; null: from 1 "
            "towards 0.01, then 0 from half of total_steps on (Beyond The Rainbow)."
        ),
    )


class PrioritizedSwitch(Block):
    """Set ``replay`` of kind prioritized."""

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
"""True or false, or a block of options; true stands for their defaults."""
SwitchOrCount = Annotated[Switch | Annotated[Count, Tag(NUMBER_TAG)], Discriminator(_switch_or_number)]


def options_of(setting: bool | Options, block: type[Options]) -> Options | None:
    """Return the block of a switch: its defaults for true, None for false."""
    if isinstance(setting, bool):
        return block() if setting else None
    return setting


class BTRConfig(Block):
    """Components of Beyond The Rainbow on top of IQN, one by one or all together."""

    all: bool = Field(
        default=False,
        description=(
            "Use the published recipe: every switch that is not set here, except layer_norm, and its hyper-parameters "
            "(discount 0.997, 8 fractions, hard target every 32,000 steps, Adam 1e-4, warm-up 200,000 steps)."
        ),
    )
    munchausen: SwitchOr[MunchausenSwitch] = Field(
        default=False, description="Use the Munchausen target: set iqn.munchausen."
    )
    impala: SwitchOr[ImpalaSwitch] = Field(default=False, description="Use the encoder of IMPALA: set nn.vision.")
    max_pool: SwitchOr[MaxPoolSwitch] = Field(
        default=False, description="Add adaptive max-pooling after the last convolution: set nn.vision.pool_size."
    )
    spectral_norm: bool = Field(
        default=False,
        description=(
            "Use spectral normalisation: set nn.vision.spectral_norm to residual for kind impala, to all for cnn."
        ),
    )
    noisy: SwitchOr[NoisySwitch] = Field(
        default=False, description="Explore with noisy layers: set nn.heads.noisy and iqn.exploration."
    )
    layer_norm: bool = Field(
        default=False,
        description=(
            "Use LayerNorm in the heads and the encoder of vectors, an option of the authors' code that their recipe "
            "leaves off."
        ),
    )
    dueling: bool = Field(default=False, description="Use value and advantage streams: set nn.heads.dueling.")
    prioritized: SwitchOr[PrioritizedSwitch] = Field(default=False, description="Use prioritised replay: set replay.")
    n_step: SwitchOrCount = Field(
        default=False, description="Sum several rewards: set iqn.num_steps to 3 with true, or to a number."
    )
    vector_environments: SwitchOrCount = Field(
        default=False,
        description=(
            "Use N environments, and one update of 4 N transitions for each step of all of them: set "
            "environment.num_envs, iqn.update_interval and iqn.batch_size. With true, N is environment.num_envs, or "
            "64 if that is not set."
        ),
    )


BTR = Annotated[
    Annotated[Literal["all"], Tag(ALL_TAG)] | Annotated[BTRConfig, Tag(OPTIONS_TAG)], Discriminator(_word_or_options)
]
"""``all`` stands for ``{all: true}``."""
