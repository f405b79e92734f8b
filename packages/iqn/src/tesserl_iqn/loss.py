"""The IQN loss as a torchrl LossModule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictParams, dispatch
from torch import Tensor, nn
from torchrl.objectives import LossModule

from tesserl_iqn.batch import Batch, read_batch
from tesserl_iqn.functional import (
    TauSampling,
    absolute_td_error,
    check_tau_sampling,
    munchausen_target,
    quantile_huber_loss,
    quantile_td_target,
    sample_taus,
    take_action,
)
from tesserl_iqn.network import QuantileNetwork, unwrap_network
from tesserl_nn_components import SpectralConv2d


class IQNLoss(LossModule):
    """Quantile Huber loss of an implicit quantile network, for torchrl's collectors, replay buffers and updaters.

    IQN (Dabney et al. 2018, arXiv:1806.06923), with Double-Q, multi-step, prioritised weights, action blocks and the
    Munchausen target (Vieillard et al. 2020, arXiv:2007.14430) as options.

    Reads the network's observation keys and ``action`` at the root, and under ``"next"`` the observations, ``reward``
    and ``terminated`` (``[*B, 1]``); where they are present also ``steps_to_next_obs`` (the steps that ``reward`` sums:
    the bootstrap is discounted by ``discount ** steps``) and ``priority_weight``. ``set_keys`` renames them. A validity
    mask that torchrl writes is obeyed (``loss_mask_key``). Writes ``td_error`` ``[*B]``, the mean of
    ``|target - prediction|``, into the input and returns ``loss``.

    The networks are called directly. ``value_network_params`` and ``target_value_network_params`` hold the same storage
    as ``value_network`` and ``target_value_network``, also after casts, moves, ``load_state_dict``, ``deepcopy`` and
    pickling. Buffers that describe data (normalisation) are one tensor for both networks; noise, power-iteration
    vectors and batch-norm statistics belong to each. In training mode each call draws new noise on the target, runs it,
    draws new noise on the online network and runs that. Schedules assign the attributes (``loss.discount = 0.997``).

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
        self._check_options()
        self.convert_to_functional(quantile_network, "value_network", create_target_params=True)
        # unregistered, as torchrl keeps value_network: the parameters are registered once, as value_network_params
        self.__dict__["target_value_network"] = deepcopy(quantile_network)
        self._tie()

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
            ValueError: reward, terminated or action has another shape than the class describes.
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
            taus = self._draw_taus(batch.batch_shape, self.num_target_taus, batch.reward.device)
            next_quantiles = self._per_block(target.quantiles(next_features, taus))
            target_values = self._target_values(batch, next_features)
        if self.training:
            online.reset_noise()
        features = online.features(*batch.observation)
        taus = self._draw_taus(batch.batch_shape, self.num_taus, batch.reward.device)
        quantiles = self._per_block(online.quantiles(features, taus))
        predicted = take_action(quantiles, batch.action)  # [*B, (N,) K]
        with torch.no_grad():
            targets = self._targets(batch, features, next_quantiles, *target_values)
        if online.num_blocks is not None:
            taus = taus.unsqueeze(-2).expand_as(predicted)
        loss = quantile_huber_loss(predicted, taus, targets, kappa=self.kappa)
        td_error = absolute_td_error(predicted, targets)
        if online.num_blocks is not None:
            loss, td_error = loss.mean(dim=-1), td_error.mean(dim=-1)
        weight = self._maybe_get_priority_weight(tensordict)
        if weight is not None:
            loss = loss * weight.reshape(loss.shape)
        # with reduction "none" torchrl's method only sets the masked elements to 0
        tensordict.set(self.tensor_keys.priority, self._reduce_loss(td_error, tensordict, reduction="none"))
        return TensorDict({"loss": self._reduce_loss(loss, tensordict)})

    def train(self, mode: bool = True) -> IQNLoss:
        """Set training mode, on both networks too.

        Args:
            mode: True for training, False for evaluation: no new noise, no power iteration, no dropout.

        Returns:
            This loss.
        """
        super().train(mode)
        for name in ("value_network", "target_value_network"):
            self.__dict__[name].train(mode)
        return self

    def _target_values(self, batch: Batch, next_features: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the target network's action values now and next, each where the target is made of it."""
        target = self.target_value_network
        value = next_value = None
        if self.munchausen_alpha is not None and self.munchausen_log_policy == "target":
            value = self._action_value(target, target.features(*batch.observation))
        if self.munchausen_alpha is not None or not self.use_double:
            next_value = self._action_value(target, next_features)
        return value, next_value

    def _targets(
        self,
        batch: Batch,
        features: Tensor,
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
            value = self._action_value(online, features.detach())
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

    def _action_value(self, network: QuantileNetwork, features: Tensor) -> Tensor:
        """Return the mean over one fresh row of policy taus for the whole batch, ``[*B, (N,) A]``."""
        taus = self._draw_taus((), self.num_policy_taus, features.device)
        return self._per_block(network.quantiles(features, taus)).mean(dim=-2)

    def _per_block(self, quantiles: Tensor) -> Tensor:
        """Move the taus behind the blocks, ``[*B, (N,) K, A]``, in float32 or wider."""
        if self.value_network.num_blocks is not None:
            quantiles = quantiles.transpose(-3, -2)
        return quantiles.float() if quantiles.dtype in (torch.bfloat16, torch.float16) else quantiles

    def _draw_taus(self, batch_shape: Sequence[int], num_taus: int, device: torch.device) -> Tensor:
        return sample_taus(batch_shape, num_taus, kind=self.tau_sampling, device=device, dtype=torch.float32)

    def _check_options(self) -> None:
        for num_taus in (self.num_taus, self.num_target_taus, self.num_policy_taus):
            check_tau_sampling(self.tau_sampling, num_taus)
        alpha, temperature = self.munchausen_alpha, self.munchausen_temperature
        rules = {
            "discount must be in [0, 1]": (0 <= self.discount <= 1, self.discount),
            "kappa must be at least 0": (self.kappa >= 0, self.kappa),
            "munchausen_alpha must be None or in [0, 1]": (alpha is None or 0 <= alpha <= 1, alpha),
            "munchausen_temperature must be above 0": (temperature > 0, temperature),
            "munchausen_clip must be at most 0": (self.munchausen_clip <= 0, self.munchausen_clip),
            "munchausen_log_policy must be target or online": (
                self.munchausen_log_policy in ("target", "online"),
                self.munchausen_log_policy,
            ),
            "action_space must be categorical or one_hot": (
                self.action_space in ("categorical", "one_hot"),
                self.action_space,
            ),
            "reduction must be mean, sum or none": (self.reduction in ("mean", "sum", "none"), self.reduction),
            "tau_sampling of the loss must draw taus": (self.tau_sampling != "midpoints", self.tau_sampling),
        }
        for rule, (holds, got) in rules.items():
            if not holds:
                raise ValueError(f"{rule}, got {got!r}")

    def _forward_value_estimator_keys(self, **kwargs: Any) -> None:
        """Do nothing: the target is computed here, not by a value estimator of torchrl."""

    def _tie(self) -> None:
        """Make both networks run on the parameters and buffers that are registered here."""
        online, target = self._modules["value_network_params"], self._modules["target_value_network_params"]
        for name in _data_buffers(self.value_network):
            key = tuple(name.split("."))
            target.get(key).data = online.get(key).data
        online.to_module(self.value_network)
        target.data.to_module(self.target_value_network)
        self.target_value_network.requires_grad_(False)

    def _apply(self, fn: Callable[[Tensor], Tensor]) -> IQNLoss:
        """Cast or move, then tie again: every tensor got new storage of its own."""
        super()._apply(fn)
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


def _data_buffers(network: nn.Module) -> list[str]:
    """Return the names of the buffers that describe data, such as the statistics of a normaliser.

    The others are noise, power-iteration vectors of spectral norm and statistics of activations: they belong to the
    weights of one network.
    """
    names = []
    for prefix, module in network.named_modules():
        if hasattr(module, "reset_noise") or isinstance(module, nn.modules.batchnorm._NormBase | SpectralConv2d):
            continue
        own = module.named_buffers(prefix, recurse=False)
        names += [name for name, _ in own if not name.endswith(("_u", "_v"))]
    return names
