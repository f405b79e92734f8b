"""The IQN loss as a torchrl LossModule."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictParams, dispatch
from torch import Tensor
from torchrl.objectives import LossModule

from tesserl_iqn.batch import Batch, explain_actions, read_batch
from tesserl_iqn.fractions import TauSampling
from tesserl_iqn.functional import self_loss_factor, take_action
from tesserl_iqn.network import QuantileNetwork, unwrap_network, without_dropout
from tesserl_iqn.quantile_loss import quantile_huber_loss, quantile_losses
from tesserl_iqn.target_network import spare_statistics, tie_networks
from tesserl_iqn.targets import check_options, evaluate, prepare_targets
from tesserl_iqn.updates import reset_parameters

COEFFICIENTS = ("discount", "munchausen_alpha", "munchausen_temperature", "munchausen_clip")
"""Options that are stored as buffers."""


class IQNLoss(LossModule):
    """Quantile Huber loss of an implicit quantile network, for torchrl's collectors, replay buffers and updaters.

    The loss is IQN's (Dabney et al. 2018, arXiv:1806.06923). Options are Double-Q, multi-step returns, prioritised
    weights, action blocks and the Munchausen target (Vieillard et al. 2020, arXiv:2007.14430). Around a network with
    fixed fractions it is the loss of QR-DQN (Dabney et al. 2017, arXiv:1710.10044); the numbers of fractions and
    ``tau_sampling`` then have no effect.

    A call reads from the batch ``*B``:

    - the network's observation keys and ``action``;
    - under ``"next"`` the observations, ``reward`` and ``terminated`` (``[*B, 1]``);
    - if present, ``steps_to_next_obs``, the number of steps that ``reward`` sums (the bootstrap is discounted by
      ``discount ** steps``), ``priority_weight`` and the masks of ``loss_mask_key``;
    - if present, ``action_mask``, also under ``"next"``: bool ``[*B, (N,) A]``, true for actions that targets may
      choose.

    It returns ``loss``, and writes ``td_error`` ``[*B]``, the mean of ``|target - prediction|``, into the batch. A
    locked batch gets it only if it has the entry already. ``set_keys`` renames entries.

    In training mode each call draws new noise for the target network, runs it, draws new noise for the online network
    and runs that. Each pass makes a power iteration in the network that runs. Only the online network uses dropout. In
    evaluation mode noise and power iterations do not change.

    The networks are called directly. ``value_network_params`` and ``target_value_network_params`` share storage with
    ``value_network`` and ``target_value_network``, also after casts, moves, ``load_state_dict``, ``deepcopy`` and
    pickling. Buffers that describe data (normalisation) are one tensor for both networks. Each network has its own
    noise, power-iteration vectors and batch-norm statistics.

    ``discount`` and the three numbers of Munchausen are float64 buffers. No cast changes them, and they are not in the
    state dict. Assign numbers to schedule them (``loss.discount = 0.997``), also in a compiled loss.

    Args:
        network: a `QuantileNetwork`, or a TensorDictModule around one whose last key is that of the taus.
        discount: discount of one step, in [0, 1].
        num_taus: fractions ``K`` of the predictions, at least 1.
        num_target_taus: fractions ``M`` of the targets, at least 1.
        num_policy_taus: fractions whose mean is the action value in the target, at least 1; drawn separately, one row
            for the whole batch.
        double: let the online network choose the next action (van Hasselt et al. 2016, arXiv:1509.06461) instead of the
            target network (IQN paper). Without effect under Munchausen, which chooses no action.
        kappa: threshold of the Huber loss in reward units, at least 0; 0 is the pinball loss.
        munchausen_alpha: weight of the Munchausen bonus, in [0, 1]; None for the plain target.
        munchausen_temperature: entropy temperature, in reward units, above 0.
        munchausen_clip: lower bound of the scaled log-policy in the bonus, in reward units, at most 0.
        munchausen_log_policy: network of the bonus, ``"target"`` (paper) or ``"online"`` (Beyond The Rainbow).
        action_space: format of ``action``: ``"categorical"``, int64 ``[*B]`` or ``[*B, N]`` with blocks, or
            ``"one_hot"``, ``[*B, A]`` or ``[*B, N * A]``.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"``. Before it, priority weights multiply each
            element (torchrl divides by their sum instead). Blocks are always averaged.
        tau_sampling: how training fractions are drawn: ``"uniform"``, ``"stratified"`` or ``"antithetic"``.
        self_loss_clamp_ratio: divide each loss by the spread of its targets, see `self_loss_factor`. A loss grows by at
            most about this ratio, at least 1 (Linesight: 4); None does not divide. The running means are float64
            buffers, which change in training mode only.
        self_loss_decay: decay of these means at each call, in [0, 1).

    Raises:
        TypeError: ``network`` is neither of the two.
        ValueError: an option is out of its range.
    """

    @dataclass
    class _AcceptedKeys:  # torchrl's protocol of set_keys
        action: NestedKey = "action"
        action_mask: NestedKey = "action_mask"
        reward: NestedKey = "reward"
        terminated: NestedKey = "terminated"
        steps_to_next_obs: NestedKey = "steps_to_next_obs"
        priority: NestedKey = "td_error"
        priority_weight: NestedKey = "priority_weight"

    _schedulable_buffers = frozenset(COEFFICIENTS)  # torchrl's protocol of buffers that take numbers
    tensor_keys: _AcceptedKeys
    default_keys = _AcceptedKeys
    out_keys = ["loss"]  # noqa: RUF012  # torchrl's name, an instance may overwrite it

    value_network: QuantileNetwork
    value_network_params: TensorDictParams
    target_value_network: QuantileNetwork
    target_value_network_params: TensorDictParams
    discount: Tensor
    munchausen_alpha: Tensor | None
    munchausen_temperature: Tensor
    munchausen_clip: Tensor
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
        self.num_taus = num_taus
        self.num_target_taus = num_target_taus
        self.num_policy_taus = num_policy_taus
        self.use_double = double  # nn.Module has a method double()
        self.kappa = kappa
        self.munchausen_log_policy = munchausen_log_policy
        self.action_space = action_space
        self.reduction = reduction
        self.tau_sampling: TauSampling = tau_sampling
        self.self_loss_clamp_ratio = self_loss_clamp_ratio
        self.self_loss_decay = self_loss_decay
        coefficients = (discount, munchausen_alpha, munchausen_temperature, munchausen_clip)
        check_options(self, *coefficients)
        device = next(quantile_network.parameters()).device
        for name, value in zip(COEFFICIENTS, coefficients, strict=True):
            if value is None:
                self.munchausen_alpha = None
            else:
                scalar = torch.tensor(value, dtype=torch.float64, device=device)
                self.register_buffer(name, scalar, persistent=False)
        self.convert_to_functional(quantile_network, "value_network", create_target_params=True)
        # unregistered, as torchrl keeps value_network: the parameters are registered once, as value_network_params
        self.__dict__["target_value_network"] = deepcopy(quantile_network)
        without_dropout(self.target_value_network)
        self._tie()
        if self_loss_clamp_ratio is not None:
            for name in ("self_loss_mean", "clamped_self_loss_mean"):
                self.register_buffer(name, torch.zeros((), dtype=torch.float64, device=device))

    @property
    def functional(self) -> bool:
        """Return True: the parameters are registered as ``value_network_params``, not in ``value_network``."""
        return True

    @property
    def in_keys(self) -> list[NestedKey]:
        """Return the keys that every call reads, without optional ones."""
        keys = self.tensor_keys
        next_keys: list[Any] = [*self._observation_keys, keys.reward, keys.terminated]
        nested = [("next", key) if isinstance(key, str) else ("next", *key) for key in next_keys]
        return [*self._observation_keys, keys.action, *nested]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call `forward`, but skip torchrl's dispatch if the only argument is a batch."""
        if (
            len(args) == 1
            and not kwargs
            and isinstance(args[0], TensorDictBase)
            and type(self).forward is IQNLoss.forward
            and all(self._has_update_associated.values())  # a hook of torchrl warns if no updater is attached
            and len(self._forward_pre_hooks) == 1
            and not (self._forward_hooks or self._backward_hooks or self._backward_pre_hooks)
            and not torch.compiler.is_compiling()
        ):
            return TensorDict(self.results(args[0]), [])
        return super().__call__(*args, **kwargs)

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
            ValueError: reward, terminated, action or a mask has another shape than the class describes, or an action
                does not exist.
        """
        return TensorDict(self.results(tensordict), [])

    def results(self, tensordict: TensorDictBase) -> dict[str, Tensor]:
        """Compute the loss as a call does, write ``td_error``, and return a dict.

        A training loop calls this method instead of the loss, because torchrl's dispatch (hooks, keywords, exploration
        types) and the TensorDict of the result cost as much time as a layer of a small network.

        Args:
            tensordict: the batch.
        """
        batch = read_batch(
            tensordict,
            self.tensor_keys,
            self._observation_keys,
            self.value_network,
            discount=self.discount,
            action_space=self.action_space,
            mask_key=self.loss_mask_key,
            weighted=bool(self.use_prioritized_weights),
        )
        loss, td_error = self._losses(batch)
        if batch.weight is not None:
            loss = loss * batch.weight
        priority, mask = self.tensor_keys.priority, batch.mask
        if mask is not None:  # torch.where, because masked elements may be NaN
            loss, td_error = torch.where(mask, loss, 0.0), torch.where(mask, td_error, 0.0)
        if not tensordict.is_locked:
            tensordict.set(priority, td_error)
        elif priority in tensordict.keys(include_nested=True):
            tensordict.set_(priority, td_error)
        if self.reduction == "sum":
            loss = loss.sum()
        elif self.reduction == "mean":
            loss = loss.mean() if mask is None else loss.sum() / mask.sum().clamp_min(1)
        return {"loss": loss}

    def _losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss and the absolute temporal difference error of each transition, ``[*B]`` each."""
        online, target = self.value_network, self.target_value_network
        if self.training:
            target.reset_noise()
        with torch.no_grad():
            following = evaluate(self, target, batch.next_observation, self.num_target_taus)
            make_targets = prepare_targets(self, batch, following)
        if self.training:
            online.reset_noise()
        present = evaluate(self, online, batch.observation, self.num_taus)
        try:
            with torch.no_grad():
                targets = make_targets(present)
            chosen = take_action(present.quantiles, batch.action)
        except (IndexError, RuntimeError):
            explain_actions(batch.action, online.num_actions)
            raise
        loss, td_error = quantile_losses(chosen, present.taus, targets, kappa=self.kappa)
        if online.num_blocks is not None:
            loss, td_error = loss.mean(dim=-1), td_error.mean(dim=-1)
        if self.self_loss_clamp_ratio is not None:
            loss = loss * self._self_loss_factor(targets, following.taus, batch.mask, self.self_loss_clamp_ratio)
        return loss, td_error

    @torch.no_grad()
    def _self_loss_factor(self, targets: Tensor, taus: Tensor, mask: Tensor | None, ratio: float) -> Tensor:
        """Return the factor of each loss, ``[*B]``; update the running means in training mode."""
        self_loss = quantile_huber_loss(targets, taus, targets, kappa=self.kappa)
        self_loss = self_loss if self.value_network.num_blocks is None else self_loss.mean(dim=-1)
        buffers = self.self_loss_mean, self.clamped_self_loss_mean
        factor, *means = self_loss_factor(self_loss, *buffers, clamp_ratio=ratio, decay=self.self_loss_decay, mask=mask)
        if self.training:
            for buffer, mean in zip(buffers, means, strict=True):
                buffer.view(1).copy_(mean)  # a compiled loss loses changes of float64 scalars (torch 2.13)
        return factor

    def train(self, mode: bool = True) -> IQNLoss:
        """Set the mode of the loss and of both networks.

        Args:
            mode: True for training, False for evaluation: no new noise, no power iteration, no dropout (which the
                target network never has).

        Returns:
            This loss.
        """
        super().train(mode)
        for name in ("value_network", "target_value_network"):
            self.__dict__[name].train(mode)
        without_dropout(self.target_value_network)
        return self

    @torch.no_grad()
    def reset_parameters_recursive(self) -> None:
        """Initialise the online network again, copy it to the target, and reset the running means of self-losses.

        Statistics of observations stay.

        Raises:
            TypeError: a module with parameters has no ``reset_parameters``; nothing is changed.
        """
        reset_parameters(self.value_network)
        self.target_value_network.load_state_dict(self.value_network.state_dict())
        if self.self_loss_clamp_ratio is not None:
            self.self_loss_mean.zero_()
            self.clamped_self_loss_mean.zero_()

    def _tie(self) -> None:
        online, target = self._modules["value_network_params"], self._modules["target_value_network_params"]
        tie_networks(self.value_network, self.target_value_network, online, target)

    def _apply(self, fn: Callable[[Tensor], Tensor]) -> IQNLoss:
        """Cast or move, then share storage again, because every tensor has new storage."""
        networks = self.value_network, self.target_value_network
        super()._apply(spare_statistics(fn, networks, *self.buffers(recurse=False)))
        self._tie()
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # deepcopy clones the TensorDictParams separately from the network; an optimiser copied with the loss holds the
        # network's parameters, so keep those
        self._modules["value_network_params"] = TensorDict.from_module(self.value_network, as_module=True)
        self._tie()
