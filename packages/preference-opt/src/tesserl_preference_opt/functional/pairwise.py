"""Losses of pairs of segments, one of which was preferred."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu, softplus

LossType = Literal[
    "sigmoid", "robust", "hinge", "ipo", "sigmoid_norm", "exo_pair", "nca_pair", "bco_pair", "sppo_hard",
    "apo_zero", "apo_down", "aot", "aot_unpaired", "discopop", "simpo", "orpo", "sft",
]  # fmt: skip
FDivergence = Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"]
LOSS_TYPES, F_DIVERGENCES = get_args(LossType), get_args(FDivergence)
AVERAGED_LOSS_TYPES = ("ipo", "sigmoid_norm", "simpo", "orpo", "sft")
"""Types that read log-probs per step."""
REFERENCE_FREE_LOSS_TYPES = ("simpo", "orpo", "sft")
SMOOTHED_LOSS_TYPES = ("sigmoid", "robust", "exo_pair", "aot", "aot_unpaired")
"""Types that read ``label_smoothing``."""
DIFFERENCE_LOSS_TYPES = ("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop")
"""Types of a difference of scores; in others the normaliser of an f-divergence would not cancel."""
_LARGEST_EXPONENT = 80.0  # exp(88.7) overflows float32


def f_divergence_score(log_ratio: Tensor, kind: FDivergence = "reverse_kl", *, alpha: float = 0.5) -> Tensor:
    """Compute the score of a log-ratio, ``f'(pi / reference)`` (f-DPO, Wang et al. 2023, arXiv:2309.16240).

    With ``u`` the ratio: ``reverse_kl`` is ``log u`` (DPO), ``forward_kl`` is ``-1 / u``, ``js_divergence`` is
    ``log(u / (1 + u))`` and ``alpha_divergence`` is ``u^(alpha - 1) / (alpha - 1)``. Constants are left out, because
    they cancel between chosen and rejected. Exponents above 80 are clipped.

    Args:
        log_ratio: policy's minus reference's log-prob, ``[P]``.
        kind: divergence that keeps the policy near the reference.
        alpha: order of the alpha-divergence; 1 is the reverse KL, 0 the forward KL.

    Returns:
        Scores, ``[P]``.

    Raises:
        ValueError: ``kind`` is unknown.
    """
    if kind not in F_DIVERGENCES:
        raise ValueError(f"f_divergence must be one of {', '.join(F_DIVERGENCES)}, got {kind!r}")
    if kind == "js_divergence":
        return logsigmoid(log_ratio)
    alpha = {"reverse_kl": 1.0, "forward_kl": 0.0}.get(kind, alpha)
    if alpha == 1:
        return log_ratio
    exponent = (alpha - 1) * log_ratio
    return exponent.clamp(max=_LARGEST_EXPONENT).exp() / (alpha - 1)


class _Scores(NamedTuple):
    """The terms of the formulas of `preference_loss`; all tensors ``[P]``."""

    policy: tuple[Tensor, Tensor]  # log-probs of chosen and rejected
    reference: tuple[Tensor, Tensor]
    chosen: Tensor  # log-ratio, or its f-divergence score
    rejected: Tensor
    beta: float | Tensor
    label_smoothing: float
    simpo_gamma: float
    discopop_tau: float

    @property
    def logits(self) -> Tensor:
        return self.beta * (self.chosen - self.rejected)


def _sigmoid(s: _Scores) -> Tensor:
    """DPO, Rafailov et al. 2023 (arXiv:2305.18290), equation 7; with label smoothing cDPO (Mitchell 2023)."""
    return _smoothed(s.logits, s.label_smoothing)


def _robust(s: _Scores) -> Tensor:
    """Robust DPO, Chowdhury et al. 2024 (arXiv:2403.00409), equation 12: unbiased under flipped labels."""
    eps = s.label_smoothing
    return (eps * logsigmoid(-s.logits) - (1 - eps) * logsigmoid(s.logits)) / (1 - 2 * eps)


def _hinge(s: _Scores) -> Tensor:
    """SLiC-HF, Zhao et al. 2023 (arXiv:2305.10425), on log-ratios as in RSO (arXiv:2309.06657)."""
    return relu(1 - s.logits)


def _ipo(s: _Scores) -> Tensor:
    """IPO, Azar et al. 2023 (arXiv:2310.12036), equation 17; beta is the paper's tau."""
    return (s.chosen - s.rejected - 1 / (2 * s.beta)).square()


def _exo_pair(s: _Scores) -> Tensor:
    """EXO, Ji et al. 2024 (arXiv:2402.00856), equation 16: reverse KL to the smoothed label."""
    eps, logits = s.label_smoothing, s.logits
    chosen = logits.sigmoid() * (logsigmoid(logits) - math.log1p(-eps))
    return chosen + (-logits).sigmoid() * (logsigmoid(-logits) - math.log(eps))


def _nca_pair(s: _Scores) -> Tensor:
    """NCA, Chen et al. 2024 (arXiv:2402.05369), for two responses."""
    chosen, rejected = s.beta * s.chosen, s.beta * s.rejected
    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


def _bco_pair(s: _Scores) -> Tensor:
    """BCO, Jung et al. 2024 (arXiv:2404.04656), without the running mean as reward shift."""
    return -logsigmoid(s.beta * s.chosen) - logsigmoid(-s.beta * s.rejected)


def _sppo_hard(s: _Scores) -> Tensor:
    """SPPO, Wu et al. 2024 (arXiv:2405.00675), equation 4.7 with win probabilities 1 and 0."""
    return (s.chosen - 0.5 / s.beta).square() + (s.rejected + 0.5 / s.beta).square()


def _apo_zero(s: _Scores) -> Tensor:
    """APO-zero, D'Oosterlinck et al. 2024 (arXiv:2408.06266), equation 7: chosen up, rejected down."""
    return 1 - (s.beta * s.chosen).sigmoid() + (s.beta * s.rejected).sigmoid()


def _apo_down(s: _Scores) -> Tensor:
    """APO-down (arXiv:2408.06266), equation 8: both down, rejected more."""
    return (s.beta * s.chosen).sigmoid() + 1 - s.logits.sigmoid()


def _aot(s: _Scores) -> Tensor:
    """AOT, Melnyk et al. 2024 (arXiv:2406.05882): sorted margins of the policy against those of the reference."""
    policy, reference = (chosen - rejected for chosen, rejected in (s.policy, s.reference))
    return _smoothed(s.beta * (policy.sort().values - reference.sort().values), s.label_smoothing)


def _aot_unpaired(s: _Scores) -> Tensor:
    """Unpaired AOT (arXiv:2406.05882): sorted log-ratios of chosen against those of rejected."""
    return _smoothed(s.beta * (s.chosen.sort().values - s.rejected.sort().values), s.label_smoothing)


def _discopop(s: _Scores) -> Tensor:
    """DiscoPOP, Lu et al. 2024 (arXiv:2406.08414): logistic and exponential loss, blended by the margin."""
    logits = s.logits
    blend = (logits / s.discopop_tau).sigmoid()
    return -logsigmoid(logits) * (1 - blend) + (-logits).exp() * blend


def _simpo(s: _Scores) -> Tensor:
    """SimPO, Meng et al. 2024 (arXiv:2405.14734), equation 6: a margin between averages, no reference."""
    return softplus(s.simpo_gamma - s.logits)


def _orpo(s: _Scores) -> Tensor:
    """ORPO, Hong et al. 2024 (arXiv:2403.07691), equation 7: the odds-ratio term; beta is the paper's lambda."""
    log_odds = [average - torch.log1p(-average.exp()) for average in (s.chosen, s.rejected)]
    return -s.beta * logsigmoid(log_odds[0] - log_odds[1])


def _sft(s: _Scores) -> Tensor:
    """Supervised fine-tuning: clone the chosen segment, whatever the other one did."""
    return -s.chosen


def _smoothed(logits: Tensor, eps: float) -> Tensor:
    """Logistic loss of a label that is flipped with probability eps."""
    if eps == 0:
        return -logsigmoid(logits)
    return -(1 - eps) * logsigmoid(logits) - eps * logsigmoid(-logits)


_FORMULAS = {
    "sigmoid": _sigmoid, "robust": _robust, "hinge": _hinge, "ipo": _ipo, "sigmoid_norm": _sigmoid,
    "exo_pair": _exo_pair, "nca_pair": _nca_pair, "bco_pair": _bco_pair, "sppo_hard": _sppo_hard,
    "apo_zero": _apo_zero, "apo_down": _apo_down, "aot": _aot, "aot_unpaired": _aot_unpaired, "discopop": _discopop,
    "simpo": _simpo, "orpo": _orpo, "sft": _sft,
}  # fmt: skip


def preference_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor | None = None,
    reference_rejected: Tensor | None = None,
    *,
    loss_type: LossType = "sigmoid",
    beta: float | Tensor = 0.1,
    label_smoothing: float = 0.0,
    chosen_lengths: Tensor | None = None,
    rejected_lengths: Tensor | None = None,
    f_divergence: FDivergence = "reverse_kl",
    f_alpha: float = 0.5,
    simpo_gamma: float = 0.5,
    discopop_tau: float = 0.05,
) -> Tensor:
    """Compute the loss of pairs of segments, one of which was preferred, with TRL's names and numbers.

    Args:
        policy_chosen: summed log-probs of the preferred segments, ``[P]``.
        policy_rejected: those of the others, ``[P]``.
        reference_chosen: summed log-probs under the reference, without gradient, ``[P]``; None is reference-free.
        reference_rejected: the same for the others.
        loss_type: one of ``LOSS_TYPES``; the source gives the paper of each. ``ipo`` uses averages if lengths are given
            (TRL, the authors' later advice), else sums (the paper). ``sigmoid_norm``, ``simpo``, ``orpo`` and ``sft``
            need lengths. The others use sums and ignore lengths. ``aot`` sorts its batch.
        beta: strength of the pull towards the reference (of the odds-ratio term in ``orpo``), above 0.
        label_smoothing: probability that a label is wrong, in [0, 0.5]; read by ``SMOOTHED_LOSS_TYPES``. With
            ``sigmoid`` this is cDPO; ``exo_pair`` needs more than 0, ``robust`` less than 0.5.
        chosen_lengths: steps of each preferred segment, ``[P]``.
        rejected_lengths: those of the others, ``[P]``.
        f_divergence: see `f_divergence_score`; other than ``reverse_kl`` for ``DIFFERENCE_LOSS_TYPES`` only.
        f_alpha: order of the alpha-divergence.
        simpo_gamma: SimPO's target margin, in units of beta times log-prob per step; at least 0 in the paper.
        discopop_tau: temperature of DiscoPOP's blend, above 0.

    Returns:
        Loss of each pair, ``[P]``.

    Raises:
        ValueError: shapes differ, or an option is out of its range or does not fit the loss type.
    """
    check_preference_options(loss_type, beta, label_smoothing, f_divergence)
    _check_shapes(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    if loss_type in REFERENCE_FREE_LOSS_TYPES or reference_chosen is None or reference_rejected is None:
        reference_chosen, reference_rejected = torch.zeros_like(policy_chosen), torch.zeros_like(policy_rejected)
    chosen, rejected = policy_chosen - reference_chosen, policy_rejected - reference_rejected
    if f_divergence != "reverse_kl":
        chosen, rejected = (f_divergence_score(ratio, f_divergence, alpha=f_alpha) for ratio in (chosen, rejected))
    if loss_type in AVERAGED_LOSS_TYPES and (chosen_lengths is not None or loss_type != "ipo"):
        if chosen_lengths is None or rejected_lengths is None:
            raise ValueError(f"{loss_type} takes averages, got no lengths; pass chosen_lengths and rejected_lengths")
        chosen, rejected = chosen / chosen_lengths.clamp_min(1), rejected / rejected_lengths.clamp_min(1)
    if loss_type == "orpo":
        chosen, rejected = _probable(chosen), _probable(rejected)
    policy, reference = (policy_chosen, policy_rejected), (reference_chosen, reference_rejected)
    return _FORMULAS[loss_type](
        _Scores(policy, reference, chosen, rejected, beta, label_smoothing, simpo_gamma, discopop_tau)
    )


def check_preference_options(loss_type: str, beta: float | Tensor, label_smoothing: float, f_divergence: str) -> None:
    """Refuse options that do not exist or do not fit each other."""
    if loss_type not in LOSS_TYPES:
        raise ValueError(f"loss_type must be one of {', '.join(LOSS_TYPES)}, got {loss_type!r}")
    if not isinstance(beta, Tensor) and not beta > 0:
        raise ValueError(f"beta must be above 0, got {beta}")
    if not 0 <= label_smoothing <= 0.5:
        raise ValueError(f"label_smoothing must be in [0, 0.5], got {label_smoothing}; above, swap the labels")
    if loss_type == "robust" and label_smoothing == 0.5:
        raise ValueError("robust must have a label_smoothing below 0.5, got 0.5: at one half labels say nothing")
    if loss_type == "exo_pair" and label_smoothing == 0:
        raise ValueError("exo_pair must have a label_smoothing above 0, got 0; its paper takes 1e-3")
    if f_divergence not in F_DIVERGENCES:
        raise ValueError(f"f_divergence must be one of {', '.join(F_DIVERGENCES)}, got {f_divergence!r}")
    if f_divergence != "reverse_kl" and loss_type not in DIFFERENCE_LOSS_TYPES:
        raise ValueError(
            f"f_divergence {f_divergence!r} fits {', '.join(DIFFERENCE_LOSS_TYPES)}, got loss_type {loss_type!r}; "
            "in others the normaliser of the policy does not cancel: use reverse_kl"
        )


def _check_shapes(policy: Tensor, *others: Tensor | None) -> None:
    for other in others:
        if other is not None and other.shape != policy.shape:
            raise ValueError(
                f"log-probs must have one shape, that of policy_chosen {tuple(policy.shape)}, got "
                f"{tuple(other.shape)}; one entry per pair"
            )
    if policy.dim() != 1:
        raise ValueError(f"log-probs must be sums over segments, [P], got {tuple(policy.shape)}; use sum_log_probs")


def _probable(average: Tensor) -> Tensor:
    """Return log-probs clipped to probabilities below 1, for which odds exist."""
    if not torch.compiler.is_compiling() and bool((average > 0).any()):
        raise ValueError(
            f"orpo needs probabilities, got an average log-prob of {float(average.max()):.3g}: that of a density; "
            "use simpo for continuous actions"
        )
    return average.clamp(max=-1e-6)
