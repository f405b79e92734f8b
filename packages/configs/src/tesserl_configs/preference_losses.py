"""``dpo.loss:``, the losses of preference pairs, by the names of TRL: one class for each set of options."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tesserl_configs.base import BelowHalf, Block, Exponent, NonNegative, Positive, UpToHalf, UpToHalfAboveZero

REFERENCE_FREE = ("simpo", "orpo", "sft")
"""Losses without a reference."""
AVERAGED = ("sigmoid_norm", "simpo", "orpo", "sft")
"""Losses that always average over the steps of a segment; ipo can also sum."""
SORTED = ("aot", "aot_unpaired")
"""Losses that sort their batch."""

# --- f_divergence: keeps the policy near the reference -----------------------------------------------------------


class PlainDivergence(Block):
    """A divergence without options."""

    kind: Literal["reverse_kl", "forward_kl", "js_divergence"] = Field(
        default="reverse_kl",
        description=(
            "Score of the log-ratio of policy and reference. reverse_kl: the log-ratio itself (DPO); forward_kl: "
            "minus the inverse ratio; js_divergence: the log-ratio of the policy to the mean of policy and reference."
        ),
    )


class AlphaDivergence(Block):
    """A divergence between the two KL divergences."""

    kind: Literal["alpha_divergence"] = "alpha_divergence"
    alpha: Exponent = Field(
        default=0.5, description="Position between the two divergences; 1: reverse KL, 0: forward KL."
    )


FDivergence = Annotated[PlainDivergence | AlphaDivergence, Field(discriminator="kind")]

_LABEL_SMOOTHING = "Probability that a label is wrong"

# --- losses of a difference of scores ----------------------------------------------------------------------------


class DifferenceOptions(Block):
    """Options of every loss of a difference of scores."""

    f_divergence: FDivergence = Field(
        default_factory=PlainDivergence,
        description="Divergence from the reference (Wang et al. 2023, arXiv:2309.16240).",
    )


class SigmoidLoss(DifferenceOptions):
    """DPO (Rafailov et al. 2023, arXiv:2305.18290); with label smoothing cDPO (Mitchell 2023)."""

    kind: Literal["sigmoid"] = "sigmoid"
    label_smoothing: UpToHalf = Field(default=0.0, description=f"{_LABEL_SMOOTHING}, in [0, 0.5] (TRL: 0).")


class RobustLoss(DifferenceOptions):
    """Robust DPO, unbiased under wrong labels (Chowdhury et al. 2024, arXiv:2403.00409)."""

    kind: Literal["robust"] = "robust"
    label_smoothing: BelowHalf = Field(default=0.1, description=f"{_LABEL_SMOOTHING}, in [0, 0.5) (paper: 0.1).")


class DifferenceLoss(DifferenceOptions):
    """Losses of a difference of scores that have no other options."""

    kind: Literal["hinge", "ipo", "sigmoid_norm"] = Field(
        description=(
            "hinge: SLiC (Zhao et al. 2023, arXiv:2305.10425); ipo: IPO (Azar et al. 2023, arXiv:2310.12036), with "
            "averages as in TRL, or the paper's sums if dpo.length_normalize is false; sigmoid_norm: DPO on averages "
            "over the steps."
        )
    )


class EXOPairLoss(DifferenceOptions):
    """EXO (Ji et al. 2024, arXiv:2402.00856)."""

    kind: Literal["exo_pair"] = "exo_pair"
    label_smoothing: UpToHalfAboveZero = Field(
        default=1e-3, description=f"{_LABEL_SMOOTHING}, in (0, 0.5] (paper: 1e-3)."
    )


class DiscoPOPLoss(DifferenceOptions):
    """DiscoPOP (Lu et al. 2024, arXiv:2406.08414)."""

    kind: Literal["discopop"] = "discopop"
    tau: Positive = Field(default=0.05, description="Temperature of the blend, > 0 (paper: 0.05).")


# --- other losses ------------------------------------------------------------------------------------------------


class PlainLoss(Block):
    """Losses without options."""

    kind: Literal["nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down", "orpo", "sft"] = Field(
        description=(
            "nca_pair: NCA (Chen et al. 2024, arXiv:2402.05369); bco_pair: BCO (Jung et al. 2024, arXiv:2404.04656); "
            "sppo_hard: SPPO with hard labels (Wu et al. 2024, arXiv:2405.00675); apo_zero: raise chosen, lower "
            "rejected segments; apo_down: lower both, rejected ones more (D'Oosterlinck et al. 2024, "
            "arXiv:2408.06266); orpo: odds ratios added to the term of dpo.nll_coef, without a reference, for "
            "discrete actions (Hong et al. 2024, arXiv:2403.07691); sft: imitate the chosen segments."
        )
    )


class AOTLoss(Block):
    """AOT, alignment by optimal transport (Melnyk et al. 2024, arXiv:2406.05882)."""

    kind: Literal["aot", "aot_unpaired"] = Field(
        description=(
            "aot: sort the score differences of the pairs; aot_unpaired: sort the scores of chosen and rejected "
            "segments separately."
        )
    )
    label_smoothing: UpToHalf = Field(default=0.0, description=f"{_LABEL_SMOOTHING}, in [0, 0.5] (TRL: 0).")


class SimPOLoss(Block):
    """SimPO: a margin between averages, without a reference (Meng et al. 2024, arXiv:2405.14734)."""

    kind: Literal["simpo"] = "simpo"
    gamma: NonNegative = Field(
        default=0.5, description="Margin between the averages, in units of beta times log-probability, >= 0 (TRL: 0.5)."
    )


class KTOLoss(Block):
    """Losses of single segments, each either good or bad."""

    kind: Literal["kto", "apo_zero_unpaired", "bco"] = Field(
        description=(
            "kto: KTO (Ethayarajh et al. 2024, arXiv:2402.01306); apo_zero_unpaired: the same with a reference point "
            "of 0 (arXiv:2408.06266); bco: BCO with the running mean of rewards (arXiv:2404.04656)."
        )
    )
    desirable_weight: NonNegative = Field(default=1.0, description="Weight of good segments, >= 0 (paper: 1).")
    undesirable_weight: NonNegative = Field(default=1.0, description="Weight of bad segments, >= 0 (paper: 1).")


SmoothedLoss = SigmoidLoss | RobustLoss | EXOPairLoss | AOTLoss
"""Losses with label smoothing."""

PairedLoss = (
    SigmoidLoss | RobustLoss | DifferenceLoss | EXOPairLoss | DiscoPOPLoss | PlainLoss | AOTLoss | SimPOLoss
)  # fmt: skip
"""Losses of a chosen and a rejected segment."""

PairLoss = Annotated[PairedLoss | KTOLoss, Field(discriminator="kind")]
