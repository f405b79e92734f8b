"""The loss of REINFORCE with a baseline."""

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import nn


class ReinforceLoss(nn.Module):
    """REINFORCE with a learned baseline (Williams 1992): ``-log pi(a, s) * advantage``.

    The advantage ``return - value(s)`` is normalised to mean 0 and deviation 1 over the batch.

    Args:
        network: has ``in_keys``; returns the parameters of the policy's distribution and the state value; has
            ``distribution(*parameters)``.
        value_coef: weight of the baseline's squared error, at least 0.
        entropy_coef: weight of the entropy bonus, at least 0.
    """

    def __init__(self, network: nn.Module, *, value_coef: float = 0.5, entropy_coef: float = 0.01) -> None:
        super().__init__()
        self.network: Any = network
        self.value_coef, self.entropy_coef = value_coef, entropy_coef

    def forward(self, batch: TensorDictBase) -> TensorDictBase:
        """Return ``loss_policy``, ``loss_value``, ``loss_entropy`` and ``entropy`` of a batch.

        Args:
            batch: the network's ``in_keys``, ``action``, ``advantage`` ``[*B, 1]`` and ``value_target`` ``[*B, 1]``.
        """
        *parameters, value = self.network(*(batch[key] for key in self.network.in_keys))
        distribution = self.network.distribution(*parameters)
        advantage = batch["advantage"].squeeze(-1)
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        entropy = distribution.entropy().mean()
        losses = {
            "loss_policy": -(distribution.log_prob(batch["action"]) * advantage).mean(),
            "loss_value": self.value_coef * 0.5 * (value - batch["value_target"]).square().mean(),
            "loss_entropy": -self.entropy_coef * entropy,
            "entropy": entropy.detach(),
        }
        return TensorDict(losses, [], device=torch.device(value.device))
