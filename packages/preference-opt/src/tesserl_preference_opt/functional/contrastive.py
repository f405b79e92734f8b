"""Contrastive preference learning (CPL, Hejna et al. 2024, arXiv:2310.13639).

The preferred segment is assumed to have the larger sum of optimal advantages. In maximum entropy RL these are
``alpha log pi``, so the loss needs no reward, no value and no reference policy.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from tesserl_policy import masked_mean
from tesserl_preference_opt.functional.steps import sum_log_probs


def cpl_advantage(
    log_probs: Tensor,
    mask: Tensor | None = None,
    *,
    alpha: float | Tensor = 0.1,
    discount: float = 1.0,
    length_normalize: bool = False,
) -> Tensor:
    """Compute the advantage of a segment under its optimal policy, ``alpha sum_t discount^t log pi`` (CPL, eq. 4).

    Args:
        log_probs: of the actions taken, ``[..., T]``.
        mask: bool ``[..., T]``, true on valid steps; None for all.
        alpha: entropy temperature, in reward units per nat, above 0.
        discount: weight of a step relative to the step before, in [0, 1].
        length_normalize: divide by the sum of the weights; not in the paper, whose segments are equally long.

    Returns:
        Advantages, in reward units, ``[...]``.

    Raises:
        ValueError: an option is out of its range, or ``mask`` has another shape.
    """
    if not isinstance(alpha, Tensor) and not alpha > 0:
        raise ValueError(f"alpha must be above 0, got {alpha}")
    sums, weights = sum_log_probs(log_probs, mask, discount=discount)
    return alpha * (sums / weights.clamp_min(1) if length_normalize else sums)


def cpl_loss(
    log_probs_1: Tensor,
    log_probs_2: Tensor,
    label: Tensor,
    *,
    alpha: float | Tensor = 0.1,
    bias: float = 0.5,
    discount: float = 1.0,
    mask_1: Tensor | None = None,
    mask_2: Tensor | None = None,
    length_normalize: bool = False,
) -> Tensor:
    """Compute the contrastive preference loss of pairs of segments (CPL, equation 5 and appendix on conservative bias).

    With ``A`` the `cpl_advantage`: ``-log sigmoid(A_preferred - bias A_other)``. With a bias of 1 the loss does not
    change if all log-probs fall together; with a bias below 1 it then rises.

    Args:
        log_probs_1: log-probs of the first segments' actions, ``[P, T]``.
        log_probs_2: those of the second, ``[P, T]``; its ``T`` may differ.
        label: 1 where the second is preferred, 0 where the first is, 0.5 for a tie, ``[P]``.
        alpha: entropy temperature, in reward units per nat, above 0.
        bias: weight of the segment that was not preferred, in (0, 1].
        discount: weight of a step relative to the step before, in [0, 1]; the released code has none.
        mask_1: bool ``[P, T]``, true on valid steps of the first; None for all.
        mask_2: the same for the second.
        length_normalize: see `cpl_advantage`.

    Returns:
        Loss of each pair, ``[P]``.

    Raises:
        ValueError: an option is out of its range, or shapes differ.
    """
    advantage_1, advantage_2 = (
        cpl_advantage(log_probs, mask, alpha=alpha, discount=discount, length_normalize=length_normalize)
        for log_probs, mask in ((log_probs_1, mask_1), (log_probs_2, mask_2))
    )
    return cpl_advantage_loss(advantage_1, advantage_2, label, bias=bias)


def cpl_advantage_loss(advantage_1: Tensor, advantage_2: Tensor, label: Tensor, *, bias: float = 0.5) -> Tensor:
    """Compute `cpl_loss` from advantages.

    Args:
        advantage_1: of the first segments, ``[P]``.
        advantage_2: of the second, ``[P]``.
        label: 1 where the second is preferred, 0 where the first is, 0.5 for a tie, ``[P]``.
        bias: weight of the segment that was not preferred, in (0, 1].

    Returns:
        Loss of each pair, ``[P]``.

    Raises:
        ValueError: ``bias`` is out of its range, or shapes differ.
    """
    _check_bias(bias)
    if not advantage_1.shape == advantage_2.shape == label.shape:
        raise ValueError(
            f"segments and labels must be equally many, got {tuple(advantage_1.shape)}, {tuple(advantage_2.shape)} and "
            f"{tuple(label.shape)}"
        )
    first, second = softplus(bias * advantage_2 - advantage_1), softplus(bias * advantage_1 - advantage_2)
    return label * second + (1 - label) * first


def cpl_ranked_loss(advantage: Tensor, score: Tensor, group: Tensor | None = None, *, bias: float = 0.5) -> Tensor:
    """Compute the contrastive preference loss of ranked segments, the mean over all ordered pairs (CPL's dense form).

    Args:
        advantage: `cpl_advantage` of each segment, ``[K]``.
        score: higher is better, in any unit, ``[K]``; segments of equal score are not compared.
        group: int64 ``[K]``, only segments of one group are compared; None compares all.
        bias: weight of the segment that ranks lower, in (0, 1].

    Returns:
        A scalar; 0 if no segments can be compared.

    Raises:
        ValueError: ``bias`` is out of its range, or shapes differ.
    """
    _check_bias(bias)
    if advantage.dim() != 1 or score.shape != advantage.shape or (group is not None and group.shape != score.shape):
        shapes = [tuple(each.shape) for each in (advantage, score, group) if each is not None]
        raise ValueError(f"advantage, score and group must be of one shape [K], got {', '.join(map(str, shapes))}")
    better = score.unsqueeze(1) > score.unsqueeze(0)  # [K, K], row better than column
    if group is not None:
        better &= group.unsqueeze(1) == group.unsqueeze(0)
    return masked_mean(softplus(bias * advantage.unsqueeze(0) - advantage.unsqueeze(1)), better)


def _check_bias(bias: float) -> None:
    if not 0 < bias <= 1:
        raise ValueError(f"bias must be in (0, 1], got {bias}; 1 is unbiased")
