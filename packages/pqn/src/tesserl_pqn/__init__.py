"""Parallelised Q-networks: Q(lambda) without replay and target networks, for scalar and quantile heads."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tesserl_pqn.__about__ import __version__

if TYPE_CHECKING:
    from tesserl_pqn.functional import mix_quantiles, q_lambda_returns, quantile_huber_loss, quantile_lambda_targets
    from tesserl_pqn.loss import PQNLoss
    from tesserl_pqn.network import QNetwork
    from tesserl_pqn.policy import EpsilonGreedy
    from tesserl_pqn.targets import QLambdaTargets

__all__ = [
    "EpsilonGreedy",
    "PQNLoss",
    "QLambdaTargets",
    "QNetwork",
    "__version__",
    "mix_quantiles",
    "q_lambda_returns",
    "quantile_huber_loss",
    "quantile_lambda_targets",
]

_HOMES = {"EpsilonGreedy": "policy", "PQNLoss": "loss", "QLambdaTargets": "targets", "QNetwork": "network"}


def __getattr__(name: str) -> Any:
    """Import a name on first use, so that reading the declaration of the algorithm imports no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'functional')}"), name)
