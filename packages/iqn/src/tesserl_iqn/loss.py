"""The IQN loss as a torchrl LossModule."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictParams, dispatch
from torch import Tensor
from torchrl.objectives import LossModule

from tesserl_iqn.batch import Batch, explain_actions, read_batch
from tesserl_iqn.functional import (
    TauSampling,
    munchausen_target,
    quantile_huber_loss,
    quantile_losses,
    quantile_td_target,
    self_loss_factor,
    take_action,
)
from tesserl_iqn.learning_layers import without_dropout
from tesserl_iqn.network import QuantileNetwork, unwrap_network
from tesserl_iqn.options import check_options
from tesserl_iqn.sampling import sample_action_value, sample_quantiles
from tesserl_iqn.ties import spare_statistics, tie_networks


class IQNLoss(LossModule):
    """Quantile Huber loss of an implicit quantile network, for torchrl's collectors, replay buffers and updaters.

    IQN (Dabney et al. 2018, arXiv:1806.06923), with Double-Q, multi-step, prioritised weights, action blocks and the
    Munchausen target (Vieillard et al. 2020, arXiv:2007.14430) as options. Around a network with fixed fractions it is
    the loss of QR-DQN (Dabney et al. 2017, arXiv:1710.10044): the numbers of fractions and ``tau_sampling`` are those
    of the network, and the arguments count for nothing.

    Reads the network's observation keys and ``action`` at the root, and under ``"next"`` the observations, ``reward``
    and ``terminated`` (``[*B, 1]``); where they are present also ``steps_to_next_obs`` (the steps that ``reward`` sums:
    the bootstrap is discounted by ``discount ** steps``) and ``priority_weight``. ``set_keys`` renames them. A validity
    mask that torchrl writes is obeyed (``loss_mask_key``). Writes ``td_error`` ``[*B]``, the mean of
    ``|target - prediction|``, into the input and returns ``loss``.

    The networks are called directly. ``value_network_params`` and ``target_value_network_params`` hold the same storage
    as ``value_network`` and ``target_value_network``, also after casts, moves, ``load_state_dict``, ``deepcopy`` and
    pickling. Buffers that describe data (normalisation) are one tensor for both networks; noise, power-iteration
    vectors and batch-norm statistics belong to each. In training mode each call draws new noise on the target, runs it,
    draws new noise on the online network and runs that; each of these passes moves the power iterations of the network
    that runs; dropout is the online network's alone. In evaluation mode nothing is drawn and nothing moves. Noise and
    power iterations are in the state dict. Schedules assign the attributes (``loss.discount = 0.997``).

    Args:
        network: a `QuantileNetwork`, or a TensorDictModule around one whose last key is that of the taus.
        discount: discount of one step, in [0, 1].
        num_taus: fractions ``K`` of the predictions, at least 1.
        num_target_taus: fractions ``M`` of the targets, at least 1.
        num_policy_taus: fractions whose mean is the action value in the target, at least 1; drawn apart from the rest,
            one row for the whole batch.
        double: whether the online network chooses the next action (van Hasselt et al. 2016, arXiv:1509.06461) instead
            of the target network (IQN paper). Without effect under Munchausen, which chooses none.
        kappa: threshold of the Huber loss in reward units, at least 0; 0 is the pinball loss.
        munchausen_alpha: weight of the Munchausen bonus, in [0, 1]; None for the plain target.
        munchausen_temperature: entropy temperature, in reward units, above 0.
        munchausen_clip: lower bound of the scaled log-policy in the bonus, in reward units, at most 0.
        munchausen_log_policy: network of the bonus, ``"target"`` (paper) or ``"online"`` (Beyond The Rainbow).
        action_space: how ``action`` is stored: ``"categorical"``, int64 ``[*B]`` or ``[*B, N]`` with blocks, or
            ``"one_hot"``, ``[*B, A]`` or ``[*B, N * A]``.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"``. Priority weights multiply each element before
            it (torchrl divides by their sum instead). Over blocks it is always the mean.
        tau_sampling: how training fractions are drawn: ``"uniform"``, ``"stratified"`` or ``"antithetic"``.
        self_loss_clamp_ratio: divides each loss by the scatter of its own targets, see `self_loss_factor`, which may
            enlarge it by about this ratio, at least 1 (Linesight: 4); None leaves losses as they are. The running means
            are buffers in float64, and move in training mode only.
        self_loss_decay: decay of these means at each call, in [0, 1).

    Raises:
        TypeError: ``network`` is neither of the two.
        ValueError: an option is out of its range.
    """

    @dataclass
    class _AcceptedKeys:
        action: NestedKey = "action"
        reward: NestedKey = "reward"
        terminated: NestedKey = "terminated"
        steps_to_next_obs: NestedKey = "steps_to_next_obs"
        priority: NestedKey = "td_error"
        priority_weight: NestedKey = "priority_weight"

    tensor_keys: _AcceptedKeys
    default_keys = _AcceptedKeys
    out_keys = ["loss"]  # noqa: RUF012  # torchrl's name, an instance may overwrite it

    value_network: QuantileNetwork
    value_network_params: TensorDictParams
    target_value_network: QuantileNetwork
    target_value_network_params: TensorDictParams
    self_loss_mean: Tensor
    clamped_self_loss_mean: Tensor

    def __init__(
        self,
        network: QuantileNetwork | TensorDictModule,
        *,
        discount: float = 0.99,
        num_taus: int = 8,
        num_target_taus: int = 8,
        num_policy_taus: int = 32,
        double: bool = True,
        kappa: float = 1.0,
        munchausen_alpha: float | None = None,
        munchausen_temperature: float = 0.03,
        munchausen_clip: float = -1.0,
        munchausen_log_policy: Literal["target", "online"] = "target",
        action_space: Literal["categorical", "one_hot"] = "categorical",
        reduction: Literal["mean", "sum", "none"] = "mean",
        tau_sampling: TauSampling = "uniform",
        self_loss_clamp_ratio: float | None = None,
        self_loss_decay: float = 0.99,
    ) -> None:
        super().__init__()
        quantile_network, self._observation_keys = unwrap_network(network)
        self.discount = discount
        self.num_taus = num_taus
        self.num_target_taus = num_target_taus
        self.num_policy_taus = num_policy_taus
        self.use_double = double  # nn.Module has a method double()
        self.kappa = kappa
        self.munchausen_alpha = munchausen_alpha
        self.munchausen_temperature = munchausen_temperature
        self.munchausen_clip = munchausen_clip
        self.munchausen_log_policy = munchausen_log_policy
        self.action_space = action_space
        self.reduction = reduction
        self.tau_sampling = tau_sampling
        self.self_loss_clamp_ratio = self_loss_clamp_ratio
        self.self_loss_decay = self_loss_decay
        check_options(self)
        self.convert_to_functional(quantile_network, "value_network", create_target_params=True)
        # unregistered, as torchrl keeps value_network: the parameters are registered once, as value_network_params
        self.__dict__["target_value_network"] = deepcopy(quantile_network)
        without_dropout(self.target_value_network)
        self._tie()
        if self_loss_clamp_ratio is not None:
            for name in ("self_loss_mean", "clamped_self_loss_mean"):
                start = torch.zeros((), dtype=torch.float64, device=next(quantile_network.parameters()).device)
                self.register_buffer(name, start)

    @property
    def in_keys(self) -> list[NestedKey]:
        """Keys that a call reads always; those read where present are not among them."""
        keys = self.tensor_keys
        next_keys: list[Any] = [*self._observation_keys, keys.reward, keys.terminated]
        return [*self._observation_keys, keys.action, *(_under_next(key) for key in next_keys)]

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Compute the loss of a batch and write its ``td_error`` into it.

        Args:
            tensordict: the batch, with the keys that the class describes; any batch shape ``*B``.

        Returns:
            TensorDict with ``loss``: a scalar, or ``[*B]`` with reduction ``"none"``.

        Raises:
            KeyError: a key is missing.
            TypeError: ``terminated`` is not bool, or actions are not integers.
            ValueError: reward, terminated or action has another shape than the class describes, or an action does not
                exist.
        """
        online, target = self.value_network, self.target_value_network
        batch = read_batch(
            tensordict,
            self.tensor_keys,
            self._observation_keys,
            online,
            discount=self.discount,
            action_space=self.action_space,
        )
        if self.training:
            target.reset_noise()
        with torch.no_grad():
            next_features = target.features(*batch.next_observation)
            next_quantiles, target_taus = self._draw(target, next_features, self.num_target_taus)
            target_values = self._target_values(batch, next_features, next_quantiles)
        if self.training:
            online.reset_noise()
        features = online.features(*batch.observation)
        quantiles, taus = self._draw(online, features, self.num_taus)
        try:
            with torch.no_grad():
                targets = self._targets(batch, features, quantiles, next_quantiles, *target_values)
            chosen = take_action(quantiles, batch.action)
        except (IndexError, RuntimeError):
            explain_actions(batch, online)
            raise
        loss, td_error = quantile_losses(chosen, taus, targets, kappa=self.kappa)
        if online.num_blocks is not None:
            loss, td_error = loss.mean(dim=-1), td_error.mean(dim=-1)
        if self.self_loss_clamp_ratio is not None:
            loss = loss * self._self_loss_factor(targets, target_taus, tensordict)
        weight = self._maybe_get_priority_weight(tensordict)
        if weight is not None:
            loss = loss * weight.reshape(loss.shape)
        # with reduction "none" torchrl's method only sets the masked elements to 0
        tensordict.set(self.tensor_keys.priority, self._reduce_loss(td_error, tensordict, reduction="none"))
        return TensorDict({"loss": self._reduce_loss(loss, tensordict)})

    def train(self, mode: bool = True) -> IQNLoss:
        """Set training mode, on both networks too.

        Args:
            mode: True for training, False for evaluation: no new noise, no power iteration, no dropout (of which the
                target network has none in training either).

        Returns:
            This loss.
        """
        super().train(mode)
        for name in ("value_network", "target_value_network"):
            self.__dict__[name].train(mode)
        without_dropout(self.target_value_network)
        return self

    def _target_values(
        self, batch: Batch, next_features: Tensor, next_quantiles: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the target network's action values now and next, each where the target is made of it."""
        target = self.target_value_network
        value = next_value = None
        if self.munchausen_alpha is not None and self.munchausen_log_policy == "target":
            value = self._action_value(target, target.features(*batch.observation))
        if self.munchausen_alpha is not None or not self.use_double:
            next_value = self._action_value(target, next_features, next_quantiles)
        return value, next_value

    def _targets(
        self,
        batch: Batch,
        features: Tensor,
        quantiles: Tensor,
        next_quantiles: Tensor,
        value: Tensor | None,
        next_value: Tensor | None,
    ) -> Tensor:
        """Return the sampled targets, ``[*B, (N,) M]``, with the online network's values where the target gave none."""
        online = self.value_network
        if next_value is None:
            next_value = self._action_value(online, online.features(*batch.next_observation))
        if self.munchausen_alpha is None:
            return quantile_td_target(batch.reward, batch.discount, next_quantiles, next_value.argmax(dim=-1))
        if value is None:
            value = self._action_value(online, features.detach(), quantiles)
        return munchausen_target(
            batch.reward,
            batch.discount,
            batch.action,
            value,
            next_value,
            next_quantiles,
            alpha=self.munchausen_alpha,
            temperature=self.munchausen_temperature,
            clip=self.munchausen_clip,
        )

    @torch.no_grad()
    def _self_loss_factor(self, targets: Tensor, taus: Tensor, tensordict: TensorDictBase) -> Tensor:
        """Return the factor of each loss, ``[*B]``, and move the running means when training."""
        self_loss = quantile_huber_loss(targets, taus, targets, kappa=self.kappa)
        self_loss = self_loss if self.value_network.num_blocks is None else self_loss.mean(dim=-1)
        factor, *means = self_loss_factor(
            self_loss,
            self.self_loss_mean,
            self.clamped_self_loss_mean,
            clamp_ratio=cast("float", self.self_loss_clamp_ratio),
            decay=self.self_loss_decay,
            mask=self._reduce_loss(torch.ones_like(self_loss), tensordict, reduction="none") > 0,
        )
        if self.training:
            for buffer, mean in zip((self.self_loss_mean, self.clamped_self_loss_mean), means, strict=True):
                buffer.view(1).copy_(mean)  # compiled, a change of a float64 scalar itself is lost (torch 2.13)
        return factor

    def _draw(self, network: QuantileNetwork, features: Tensor, num_taus: int) -> tuple[Tensor, Tensor]:
        return sample_quantiles(network, features, num_taus, kind=self.tau_sampling)

    def _action_value(self, network: QuantileNetwork, features: Tensor, quantiles: Tensor | None = None) -> Tensor:
        number, kind = self.num_policy_taus, self.tau_sampling
        return sample_action_value(network, features, number, kind=kind, quantiles=quantiles)

    def _forward_value_estimator_keys(self, **kwargs: Any) -> None:
        """Do nothing: the target is computed here, not by a value estimator of torchrl."""

    def _tie(self) -> None:
        online, target = self._modules["value_network_params"], self._modules["target_value_network_params"]
        tie_networks(self.value_network, self.target_value_network, online, target)

    def _apply(self, fn: Callable[[Tensor], Tensor]) -> IQNLoss:
        """Cast or move, then tie again: every tensor got new storage of its own."""
        networks = self.value_network, self.target_value_network
        super()._apply(spare_statistics(fn, networks, *self.buffers(recurse=False)))
        self._tie()
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # deepcopy clones the TensorDictParams apart from the network; an optimiser that is copied along holds the
        # network's parameters, so these are the ones to keep
        self._modules["value_network_params"] = TensorDict.from_module(self.value_network, as_module=True)
        self._tie()


def _under_next(key: NestedKey) -> NestedKey:
    return ("next", key) if isinstance(key, str) else ("next", *key)
