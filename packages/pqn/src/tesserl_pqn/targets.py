"""Lambda-returns of a rollout, as a module that writes them into a TensorDict."""

from __future__ import annotations

import torch
from tensordict import NestedKey, TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from torch import Tensor

from tesserl_policy import get_entry
from tesserl_pqn.functional import q_lambda_returns, quantile_lambda_targets
from tesserl_pqn.network import unwrap_network


class QLambdaTargets(TensorDictModuleBase):
    """Write the targets of PQN into rollouts: `q_lambda_returns`, or `quantile_lambda_targets` for quantiles.

    It reads under ``"next"`` the observations, ``reward`` and ``terminated`` (``[*B, T, 1]``) from before any reset, as
    torchrl's collectors write them. If present, it also reads ``truncated`` (``[*B, T, 1]``; otherwise no step is
    truncated) and ``action_mask`` (bool, ``[*B, T, A]``, true for actions that targets may choose). It writes
    ``value_target``, ``[*B, T, 1]`` or ``[*B, T, K]``. Call it once per rollout, before the first update.

    Args:
        network: a `QNetwork`, or a TensorDictModule around one.
        discount: discount of one step, in [0, 1].
        lambda_: weight of longer returns, in [0, 1]; 0.65 for Atari in the paper.
    """

    def __init__(self, network: torch.nn.Module, *, discount: float = 0.99, lambda_: float = 0.65) -> None:
        super().__init__()
        self.network = unwrap_network(network)
        keys = list(network.in_keys) if isinstance(network, TensorDictModule) else self.network.in_keys
        self._observation_keys: list[NestedKey] = list(keys)
        self.discount, self.lambda_ = discount, lambda_
        outcome = [("next", "reward"), ("next", "terminated")]
        self.in_keys = [*(("next", key) for key in self._observation_keys), *outcome]
        self.out_keys = ["value_target"]

    @torch.no_grad()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write ``value_target`` into a rollout ``[*B, T]`` and return it.

        Raises:
            KeyError: a key is missing.
            TypeError: flags are not bool, or rewards are not floating point.
            ValueError: an entry has another shape than the class describes.
        """
        following = get_entry(tensordict, "next")
        mask = following.get("action_mask", None)
        inputs = [get_entry(following, key) for key in self._observation_keys]
        outputs = self.network(*inputs, *([] if mask is None else [mask]))
        terminated = get_entry(following, "terminated")
        truncated = following.get("truncated", None)
        if truncated is None:
            truncated = torch.zeros_like(terminated)
        tensordict.set(
            "value_target",
            self.targets(get_entry(following, "reward"), self.network.bootstrap(outputs), terminated, truncated),
        )
        return tensordict

    def targets(self, reward: Tensor, following: Tensor, terminated: Tensor, truncated: Tensor) -> Tensor:
        """Return the targets of a rollout whose bootstraps are known.

        Args:
            reward: ``[*B, T, 1]``.
            following: output of ``network.bootstrap`` for the states that the steps led to, ``[*B, T]`` or
                ``[*B, T, K]``.
            terminated: bool, ``[*B, T, 1]``.
            truncated: bool, ``[*B, T, 1]``.

        Returns:
            ``[*B, T, 1]``, or ``[*B, T, K]`` with quantiles.

        Raises:
            ValueError: an entry has another shape.
        """
        for name, entry in (("reward", reward), ("terminated", terminated), ("truncated", truncated)):
            if entry.shape[-1:] != (1,) or entry.dim() < 2:
                raise ValueError(
                    f"{name} must have the shape [*B, T, 1], got {tuple(entry.shape)}; unsqueeze the last dimension"
                )
        function = q_lambda_returns if self.network.num_quantiles is None else quantile_lambda_targets
        targets = function(
            reward.squeeze(-1),
            following,
            terminated.squeeze(-1),
            truncated.squeeze(-1),
            discount=self.discount,
            lambda_=self.lambda_,
        )
        return targets.unsqueeze(-1) if self.network.num_quantiles is None else targets
