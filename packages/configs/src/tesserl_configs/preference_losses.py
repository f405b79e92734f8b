"""``dpo.loss:``, the losses of preference pairs, by the names of TRL."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tesserl_configs.base import BelowHalf, Block, Exponent, NonNegative, Positive, UpToHalf, UpToHalfAboveZero

# --- f_divergence: what keeps the policy near the reference ------------------------------------------------------


class ReverseKL(Block):
    """The score of a log-ratio is itself (DPO)."""

    kind: Literal["reverse_kl"] = "reverse_kl"


class ForwardKL(Block):
    """Minus the inverse ratio."""

    kind: Literal["forward_kl"] = "forward_kl"


class JSDivergence(Block):
    """The log-ratio to the mean of policy and reference."""

    kind: Literal["js_divergence"] = "js_divergence"


class AlphaDivergence(Block):
    """Between the two KL divergences."""

    kind: Literal["alpha_divergence"] = "alpha_divergence"
    alpha: Exponent = Field(default=0.5, description="1: reverse KL, 0: forward KL.")


FDivergence = Annotated[ReverseKL | ForwardKL | JSDivergence | AlphaDivergence, Field(discriminator="kind")]

_LABEL_SMOOTHING = "Probability that a label is wrong"

# --- losses of a difference of scores ----------------------------------------------------------------------------


class DifferenceLoss(Block):
    """Options of every loss of a difference of scores."""

    f_divergence: FDivergence = Field(
        default_factory=ReverseKL, description="Divergence from the reference (Wang et al. 2023, arXiv:2309.16240)."
    )


class SigmoidLoss(DifferenceLoss):
    """DPO (Rafailov et al. 2023, arXiv:2305.18290); with label smoothing cDPO (Mitchell 2023)."""

    kind: Literal["sigmoid"] = "sigmoid"
    label_smoothing: UpToHalf = Field(default=0.0, description=f"{_LABEL_SMOOTHING}, in [0, 0.5] (TRL: 0).")


class RobustLoss(DifferenceLoss):
    """Robust DPO, unbiased under wrong labels (Chowdhury et al. 2024, arXiv:2403.00409)."""

    kind: Literal["robust"] = "robust"
    label_smoothing: BelowHalf = Field(default=0.1, description=f"{_LABEL_SMOOTHING}, in [0, 0.5) (paper: 0.1).")


class HingeLoss(DifferenceLoss):
    """SLiC (Zhao et al. 2023, arXiv:2305.10425)."""

    kind: Literal["hinge"] = "hinge"


class IPOLoss(DifferenceLoss):
    """IPO (Azar et al. 2023, arXiv:2310.12036); averages as in TRL, or the paper's sums: dpo.length_normalize false."""

    kind: Literal["ipo"] = "ipo"


class SigmoidNormLoss(DifferenceLoss):
    """DPO on averages over the steps."""

    kind: Literal["sigmoid_norm"] = "sigmoid_norm"


class EXOPairLoss(DifferenceLoss):
    """EXO (Ji et al. 2024, arXiv:2402.00856)."""

    kind: Literal["exo_pair"] = "exo_pair"
    label_smoothing: UpToHalfAboveZero = Field(
        default=1e-3, description=f"{_LABEL_SMOOTHING}, in (0, 0.5] (paper: 1e-3)."
    )


class DiscoPOPLoss(DifferenceLoss):
    """DiscoPOP (Lu et al. 2024, arXiv:2406.08414)."""

    kind: Literal["discopop"] = "discopop"
    tau: Positive = Field(default=0.05, description="Temperature of the blend, > 0 (paper: 0.05).")


# --- losses of two scores ----------------------------------------------------------------------------------------


class NCAPairLoss(Block):
    """NCA (Chen et al. 2024, arXiv:2402.05369)."""

    kind: Literal["nca_pair"] = "nca_pair"


class BCOPairLoss(Block):
    """BCO (Jung et al. 2024, arXiv:2404.04656)."""

    kind: Literal["bco_pair"] = "bco_pair"


class SPPOHardLoss(Block):
    """SPPO with hard labels (Wu et al. 2024, arXiv:2405.00675)."""

    kind: Literal["sppo_hard"] = "sppo_hard"


class APOZeroLoss(Block):
    """APO-zero: chosen up, rejected down (D'Oosterlinck et al. 2024, arXiv:2408.06266)."""

    kind: Literal["apo_zero"] = "apo_zero"


class APODownLoss(Block):
    """APO-down: both down, rejected more (D'Oosterlinck et al. 2024, arXiv:2408.06266)."""

    kind: Literal["apo_down"] = "apo_down"


class AOTLoss(Block):
    """AOT, sorted differences of pairs (Melnyk et al. 2024, arXiv:2406.05882)."""

    kind: Literal["aot"] = "aot"
    label_smoothing: UpToHalf = Field(default=0.0, description=f"{_LABEL_SMOOTHING}, in [0, 0.5] (TRL: 0).")


class AOTUnpairedLoss(Block):
    """AOT, sorted scores of either side (Melnyk et al. 2024, arXiv:2406.05882)."""

    kind: Literal["aot_unpaired"] = "aot_unpaired"
    label_smoothing: UpToHalf = Field(default=0.0, description=f"{_LABEL_SMOOTHING}, in [0, 0.5] (TRL: 0).")


class KTOLoss(Block):
    """KTO, segments that are good or bad by themselves (Ethayarajh et al. 2024, arXiv:2402.01306)."""

    kind: Literal["kto"] = "kto"
    desirable_weight: NonNegative = Field(default=1.0, description="Weight of good segments, >= 0 (paper: 1).")
    undesirable_weight: NonNegative = Field(default=1.0, description="Weight of bad segments, >= 0 (paper: 1).")


# --- losses without a reference ----------------------------------------------------------------------------------


class SimPOLoss(Block):
    """SimPO: a margin between averages (Meng et al. 2024, arXiv:2405.14734)."""

    kind: Literal["simpo"] = "simpo"
    gamma: NonNegative = Field(
        default=0.5, description="Margin, in units of beta times log-probability, >= 0 (TRL: 0.5)."
    )


class ORPOLoss(Block):
    """ORPO: odds ratios beside dpo.nll_coef, for discrete actions (Hong et al. 2024, arXiv:2403.07691)."""

    kind: Literal["orpo"] = "orpo"


SmoothedLoss = SigmoidLoss | RobustLoss | EXOPairLoss | AOTLoss | AOTUnpairedLoss
"""Losses that know how often labels are wrong."""

PairedLoss = (
    SigmoidLoss | RobustLoss | HingeLoss | IPOLoss | SigmoidNormLoss | EXOPairLoss | DiscoPOPLoss | NCAPairLoss
    | BCOPairLoss | SPPOHardLoss | APOZeroLoss | APODownLoss | AOTLoss | AOTUnpairedLoss | SimPOLoss | ORPOLoss
)  # fmt: skip
"""Losses of a chosen and a rejected segment."""

PairLoss = Annotated[PairedLoss | KTOLoss, Field(discriminator="kind")]
