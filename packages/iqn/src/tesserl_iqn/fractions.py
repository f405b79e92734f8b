"""Draw quantile fractions, and distort them to avoid or seek risk.

Shapes: ``*B`` any batch shape, ``K`` any number of taus. Sources: IQN, Dabney et al. 2018 (arXiv:1806.06923); QR-DQN,
Dabney et al. 2017 (arXiv:1710.10044).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

RiskKind = Literal["cvar", "wang", "pow", "cpw"]
TauSampling = Literal["uniform", "stratified", "antithetic", "midpoints"]
RISK_KINDS, TAU_SAMPLINGS = get_args(RiskKind), get_args(TauSampling)


def sample_taus(
    batch_shape: Sequence[int],
    num_taus: int,
    *,
    kind: TauSampling = "uniform",
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Draw quantile fractions; each of them is uniform on [0, 1], except ``midpoints``.

    ``stratified`` draws one fraction in each of ``num_taus`` equal segments. ``antithetic`` (Linesight) draws one in
    each of ``num_taus / 2`` equal segments of [0, 0.5) and mirrors them to ``1 - tau``. Both lower the variance of a
    mean over taus. ``midpoints`` are the fixed ``(2i + 1) / (2 num_taus)`` of QR-DQN (arXiv:1710.10044); they draw
    nothing.

    Args:
        batch_shape: the shape ``*B`` of the batch.
        num_taus: number of fractions ``K`` for each element of the batch, at least 1; even for ``antithetic``.
        kind: how to draw.
        generator: source of randomness; default: torch's global one.
        device: device of the result; default: torch's.
        dtype: floating dtype of the result; default: torch's.

    Returns:
        Fractions, ``[*B, K]``; ascending along ``K`` for ``stratified`` and ``midpoints``.

    Raises:
        ValueError: ``num_taus`` is below 1, or odd with ``antithetic``, or ``kind`` is unknown.
    """
    check_tau_sampling(kind, num_taus)
    shape = (*batch_shape, num_taus)
    if kind == "uniform":
        return torch.rand(shape, generator=generator, device=device, dtype=dtype)
    num_segments = num_taus // 2 if kind == "antithetic" else num_taus
    left_edges = torch.arange(num_segments, device=device, dtype=dtype or torch.get_default_dtype())
    if kind == "midpoints":
        return ((left_edges + 0.5) / num_taus).expand(shape)
    offsets = torch.rand((*batch_shape, num_segments), generator=generator, device=device, dtype=dtype)
    taus = (left_edges + offsets) / num_taus
    return torch.cat([taus, 1 - taus], dim=-1) if kind == "antithetic" else taus


def check_tau_sampling(kind: str, num_taus: int) -> None:
    """Refuse an unknown way of drawing taus, or one that does not fit their number."""
    if kind not in TAU_SAMPLINGS:
        raise ValueError(f"tau sampling must be one of {', '.join(TAU_SAMPLINGS)}, got {kind!r}")
    if num_taus < 1:
        raise ValueError(f"number of taus must be at least 1, got {num_taus}")
    if kind == "antithetic" and num_taus % 2:
        raise ValueError(f"antithetic taus come in pairs: their number must be even, got {num_taus}; use stratified")


def distort_taus(taus: Tensor, kind: RiskKind, eta: float) -> Tensor:
    """Distort quantile fractions to avoid or seek risk when acting (IQN, section on risk-sensitive policies).

    The mean of ``Z`` at the distorted fractions is a distorted expectation. Only acting distorts; training keeps taus
    uniform.

    - ``cvar``: ``eta * tau``, the mean of the worst fraction ``eta`` in (0, 1]; 1 is risk neutral.
    - ``wang``: ``Phi(Phi^-1(tau) + eta)``, any real eta; below 0 averse, above 0 seeking.
    - ``pow``: ``tau ** (1 / (1 + |eta|))`` for eta >= 0 (seeking), else ``1 - (1 - tau) ** (1 / (1 + |eta|))``
      (averse).
    - ``cpw``: ``tau**eta / (tau**eta + (1 - tau)**eta) ** (1 / eta)``, eta > 0, cumulative prospect theory (people:
      0.71); 1 is neutral.

    Args:
        taus: fractions in [0, 1], ``[*B, K]``.
        kind: the distortion.
        eta: its strength, see above.

    Returns:
        Fractions in [0, 1], in the shape of ``taus``.

    Raises:
        ValueError: ``kind`` is unknown or ``eta`` is out of its range.
    """
    check_risk(kind, eta)
    if kind == "cvar":
        return eta * taus
    if kind == "wang":
        return torch.special.ndtr(torch.special.ndtri(taus) + eta)
    if kind == "pow":
        exponent = 1.0 / (1.0 + abs(eta))
        return taus**exponent if eta >= 0 else 1 - (1 - taus) ** exponent
    powered = taus**eta
    return powered / (powered + (1 - taus) ** eta) ** (1.0 / eta)


def check_risk(kind: str, eta: float) -> None:
    """Refuse an unknown distortion of risk, or a strength out of range."""
    if kind not in RISK_KINDS:
        raise ValueError(f"risk distortion must be one of {', '.join(RISK_KINDS)}, got {kind!r}")
    if not math.isfinite(eta):
        raise ValueError(f"eta of the risk distortion {kind} must be finite, got {eta}")
    if kind == "cvar" and not 0 < eta <= 1:
        raise ValueError(f"eta of cvar must be in (0, 1], got {eta}; 0.1 acts on the mean of the worst tenth")
    if kind == "cpw" and eta <= 0:
        raise ValueError(f"eta of cpw must be positive, got {eta}; 0.71 fits people, 1 is neutral")
