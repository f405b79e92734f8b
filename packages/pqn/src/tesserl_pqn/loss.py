"""The loss of PQN as a torchrl LossModule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from tensordict import NestedKey, TensorDictBase
from tensordict.nn import TensorDictModule, dispatch
from torch import Tensor

from tesserl_policy import DirectLossModule, get_entry
from tesserl_policy.loss_module import check_reduction
from tesserl_pqn.functional import quantile_huber_loss, take_action
from tesserl_pqn.network import QNetwork, unwrap_network


class PQNLoss(DirectLossModule):
    """Loss between the value of the action taken and its lambda-return (PQN, Gallici et al. 2024, arXiv:2407.04811).

    The loss is half the squared error for a network with values, and the quantile Huber loss for one with quantiles.
    There is no target network: `QLambdaTargets` computes the targets once per rollout, and they stay fixed while the
    loss learns from its minibatches.

    A call reads the network's observation keys, ``action`` and ``value_target``, ``[*B, 1]`` or ``[*B, K]``.
    ``set_keys`` renames them. It leaves out steps that torchrl's mask marks as invalid (``loss_mask_key``). The network
    is called directly.

    It returns ``loss`` and, without gradient, two means over the batch: ``td_error``, the mean of ``|target - value|``,
    and ``chosen_action_value``. Both use the means of quantiles.

    Args:
        network: a `QNetwork`, or a TensorDictModule around one.
        kappa: threshold of the Huber loss of quantiles in reward units, at least 0; 0 is the pinball loss.
        action_space: format of ``action``: ``"categorical"``, int64 ``[*B]``, or ``"one_hot"``, ``[*B, A]``.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"``.

    Raises:
        TypeError: ``network`` is neither of the two.
        ValueError: an option is out of its range.
    """

    @dataclass
    class _AcceptedKeys:
        action: NestedKey = "action"
        value_target: NestedKey = "value_target"

    tensor_keys: _AcceptedKeys
    default_keys = _AcceptedKeys
    _all_out_keys = ["loss", "td_error", "chosen_action_value"]  # noqa: RUF012  # never changed

    _is_direct = True

    value_network: QNetwork

    def __init__(
        self,
        network: QNetwork | TensorDictModule,
        *,
        kappa: float = 1.0,
        action_space: Literal["categorical", "one_hot"] = "categorical",
        reduction: Literal["mean", "sum", "none"] = "mean",
    ) -> None:
        super().__init__()
        if not kappa >= 0:
            raise ValueError(f"kappa must be at least 0, got {kappa}")
        if action_space not in ("categorical", "one_hot"):
            raise ValueError(f"action_space must be categorical or one_hot, got {action_space!r}")
        check_reduction(reduction)
        self.kappa, self.action_space, self.reduction = kappa, action_space, reduction
        self.value_network = unwrap_network(network)
        self._observation_keys: list[NestedKey] = list(network.in_keys)
        self.set_keys()

    def _required_keys(self) -> list[NestedKey]:
        """Return the keys that every call reads, without optional masks."""
        return [*self._observation_keys, self.tensor_keys.action, self.tensor_keys.value_target]

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Compute the loss of a batch.

        Args:
            tensordict: the batch, with the keys that the class describes; any batch shape ``*B``.

        Returns:
            TensorDict with ``loss``, a scalar or ``[*B]`` with reduction ``"none"``, and the scalar metrics.

        Raises:
            KeyError: a key is missing.
            TypeError: actions are not integers.
            ValueError: an entry has another shape than the class describes, or an action does not exist.
        """
        return self._output(self.results(tensordict))

    def results(self, tensordict: TensorDictBase) -> dict[Any, Tensor]:
        """Return all entries of a call in a dict, see `DirectLossModule.results`."""
        network = self.value_network
        outputs = network(*(get_entry(tensordict, key) for key in self._observation_keys))
        batch_shape = outputs.shape[:-1] if network.num_quantiles is None else outputs.shape[:-2]
        action = self._action(tensordict, batch_shape)
        target = get_entry(tensordict, self.tensor_keys.value_target)
        expected = (*batch_shape, network.num_quantiles or 1)
        if target.shape != expected:
            raise ValueError(
                f"{self.tensor_keys.value_target} must have the shape {expected}, got {tuple(target.shape)}; compute "
                "it with QLambdaTargets around the same network"
            )
        try:
            if network.num_quantiles is None:
                chosen = outputs.gather(-1, action.unsqueeze(-1))  # [*B, 1]
                loss = 0.5 * (chosen - target).square().squeeze(-1)
            else:
                chosen = take_action(outputs, action)  # [*B, K]
                loss = quantile_huber_loss(chosen, target, kappa=self.kappa)
        except (IndexError, RuntimeError):
            self._explain(action)
            raise
        value = chosen.detach().mean(dim=-1)
        error = (target.mean(dim=-1) - value).abs()
        return {
            "loss": self._reduce_loss(loss, tensordict),
            "td_error": self._reduce_loss(error, tensordict, reduction="mean"),
            "chosen_action_value": self._reduce_loss(value, tensordict, reduction="mean"),
        }

    def _action(self, tensordict: TensorDictBase, batch_shape: torch.Size) -> Tensor:
        """Return actions as categories, ``[*B]``."""
        key = self.tensor_keys.action
        action: Tensor = get_entry(tensordict, key)
        one_hot = self.action_space == "one_hot"
        expected = (*batch_shape, self.value_network.num_actions) if one_hot else tuple(batch_shape)
        if action.shape != expected:
            raise ValueError(
                f"{key} must have the shape {expected} for action_space={self.action_space!r}, got "
                f"{tuple(action.shape)}; say how actions are stored with action_space=, and drop singleton dimensions"
            )
        if one_hot:
            return action.to(torch.uint8).argmax(dim=-1)
        if action.is_floating_point():
            raise TypeError(f"{key} must hold categories, int64, got {action.dtype}; convert it with .long()")
        return action.to(torch.int64)

    def _explain(self, action: Tensor) -> None:
        """Raise an error if an action does not exist; called after torch has failed."""
        low, high = (int(bound) for bound in action.aminmax())
        number = self.value_network.num_actions
        if low < 0 or high >= number:
            raise ValueError(
                f"action must be in [0, {number}), the actions of the network, got values from {low} to {high}; number "
                "actions from 0"
            )
