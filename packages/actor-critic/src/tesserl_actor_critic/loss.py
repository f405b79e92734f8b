"""The PPO loss as a torchrl LossModule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tensordict import NestedKey, TensorDictBase
from tensordict.nn import TensorDictModule, dispatch
from torch import Tensor, nn
from torchrl.objectives.utils import ValueEstimators, dispatch_value_estimator

from tesserl_actor_critic.batch import Reader, Steps, without_masked
from tesserl_actor_critic.functional import (
    VALUE_LOSS_KINDS,
    ValueLossKind,
    check_clip,
    clipped_surrogate_loss,
    clipped_value_loss,
    normalized,
)
from tesserl_actor_critic.interfaces import policy_and_value
from tesserl_actor_critic.metrics import metric_keys, ppo_metrics
from tesserl_actor_critic.network import ActorCritic
from tesserl_policy import DirectLossModule, action_entropy, action_log_probs, log_ratio_bounds, masked_mean
from tesserl_policy.loss_module import Reduction, check_reduction

_VALUE_ESTIMATORS = (ValueEstimators.TD0, ValueEstimators.TD1, ValueEstimators.TDLambda, ValueEstimators.GAE)


class PPOLoss(DirectLossModule):
    """PPO's clipped loss (Schulman et al. 2017, arXiv:1707.06347), for torchrl's collectors, buffers and trainers.

    ``loss_objective`` is the mean of the clipped surrogate, ``loss_critic`` is ``value_coef`` times the mean value
    loss (of ``"l2"`` one half of the squared error, as CleanRL's), ``loss_entropy`` is ``-entropy_coef`` times the
    mean entropy; train on their sum.

    Reads the observation keys of both networks, ``action``, ``action_log_prob`` ``[*B]``, ``advantage`` and
    ``value_target`` ``[*B, 1]``; with a value clip also ``state_value`` ``[*B, 1]``, the value when acting. If present,
    it applies ``mask`` ``[*B]``, true on valid steps, and the masks that torchrl writes (``loss_mask_key``): masked
    steps do not affect losses, metrics or the normalisation of advantages. ``set_keys`` renames keys. After
    `make_value_estimator` a call computes ``advantage`` and ``value_target`` itself if the batch has none.

    An `ActorCritic` is called directly, and its shared body runs once. With a recurrent body, or torchrl's recurrent
    modules, batches are ``[num_envs, T]`` and sequences stay whole. Schedules may assign ``clip_epsilon``,
    ``clip_epsilon_high``, ``entropy_coef`` and ``value_coef`` between updates (``loss.clip_epsilon = 0.1``): they are
    buffers.

    Metrics, without gradient: ``entropy``; ``kl_approx``, the mean of ``-log r`` (and ``mean_ratio - 1 + kl_approx``
    is Schulman's estimate, which is never negative); ``clip_fraction``; ``ESS``, the effective sample size as a
    fraction; ``max_ratio``, ``mean_ratio``; ``explained_variance``; ``value_clip_fraction`` with a value clip.

    Args:
        actor_network: an `ActorCritic`, its ``actor``, or any torchrl ``ProbabilisticActor`` with one action.
        critic_network: a module that writes ``state_value``; not given with an `ActorCritic`.
        clip_epsilon: how far the ratio may fall below 1, in [0, 1), and rise above 1 if ``clip_epsilon_high`` is None.
        clip_epsilon_high: how far the ratio may rise above 1, at least 0; None for ``clip_epsilon``.
        dual_clip: largest ratio where the advantage is negative, above 1; None for no bound.
        value_clip: how far the value may move from the old one, in reward units, above 0; None for no clip.
        value_loss: ``"l2"`` or ``"smooth_l1"``.
        value_coef: weight of the value loss, at least 0.
        entropy_coef: weight of the entropy, in reward units per nat.
        normalize_advantage: whether to normalise each batch's advantages to mean 0 and standard deviation 1.
        reduction: ``"mean"`` or ``"sum"`` of the valid steps, or ``"none"`` for losses ``[*B]`` with 0 on masked steps.
        log_metrics: whether to return all metrics; False returns the entropy only, which makes a small update about a
            tenth faster. May be assigned later.

    Raises:
        TypeError: the networks are of another kind, or have no parameters to train.
        ValueError: an option is out of its range.
    """

    @dataclass
    class _AcceptedKeys:
        action: NestedKey = "action"
        sample_log_prob: NestedKey = "action_log_prob"
        advantage: NestedKey = "advantage"
        value_target: NestedKey = "value_target"
        value: NestedKey = "state_value"
        mask: NestedKey = "mask"
        reward: NestedKey = "reward"
        done: NestedKey = "done"
        terminated: NestedKey = "terminated"

    tensor_keys: _AcceptedKeys
    default_keys = _AcceptedKeys
    default_value_estimator = ValueEstimators.GAE
    _coefficients = ("clip_epsilon", "clip_epsilon_high", "entropy_coef", "value_coef")

    actor_network: Any
    critic_network: Any
    clip_epsilon: Any
    clip_epsilon_high: Any
    entropy_coef: Any
    value_coef: Any
    _actor_critic: ActorCritic | None

    def __init__(
        self,
        actor_network: nn.Module,
        critic_network: TensorDictModule | None = None,
        *,
        clip_epsilon: float = 0.2,
        clip_epsilon_high: float | None = None,
        dual_clip: float | None = None,
        value_clip: float | None = None,
        value_loss: ValueLossKind = "l2",
        value_coef: float = 0.5,
        entropy_coef: float = 0.01,
        normalize_advantage: bool = True,
        reduction: Reduction = "mean",
        log_metrics: bool = True,
    ) -> None:
        super().__init__()
        self.actor_network, self.critic_network = policy_and_value(actor_network, critic_network)
        owners = [each.__dict__.get("actor_critic") for each in (self.actor_network, self.critic_network)]
        # not registered as a submodule: the two networks above hold its parameters
        self.__dict__["_actor_critic"] = owners[0] if owners[0] is owners[1] else None
        self._is_direct = self._actor_critic is not None
        self._observation_keys: list[NestedKey] = list(
            dict.fromkeys([*self.actor_network.in_keys, *self.critic_network.in_keys])
        )
        self._is_recurrent = "is_init" in self._observation_keys
        check_clip(clip_epsilon, clip_epsilon_high, dual_clip)
        self.clip_epsilon = clip_epsilon
        self.clip_epsilon_high = clip_epsilon_high
        self.entropy_coef = entropy_coef
        self.value_coef = value_coef
        self.dual_clip = dual_clip
        self.value_clip = value_clip
        self.value_loss: ValueLossKind = value_loss
        self.normalize_advantage = normalize_advantage
        self.reduction: Reduction = reduction
        self.log_metrics = log_metrics
        self._check_options()
        actor = self.actor_network
        self.set_keys(action=actor.dist_sample_keys[0], sample_log_prob=actor.log_prob_keys[0])

    def make_value_estimator(self, value_type: Any = None, **hyperparams: Any) -> PPOLoss:
        """Make calls estimate ``advantage`` and ``value_target`` if the batch has none.

        The batch must then be a rollout ``[num_envs, T]`` that has, under ``"next"``, the critic's observations,
        ``reward``, ``done`` and ``terminated``. Each call computes the estimate again and does not write it into the
        batch.

        Args:
            value_type: one of torchrl's ``ValueEstimators``, an estimator, or its class; None for ``GAE``.
            **hyperparams: arguments of the estimator: ``gamma`` (default 0.99) and, for ``GAE``, ``lmbda`` (default
                0.95).

        Returns:
            This loss.

        Raises:
            NotImplementedError: PPO does not support the estimator.
        """
        value_type, options = self._prepare_value_estimator_kwargs(value_type, **hyperparams)
        if value_type is not None:
            dispatch_value_estimator(self, value_type, supported=_VALUE_ESTIMATORS, **options)
        self._forward_value_estimator_keys()
        return self

    def _forward_value_estimator_keys(self, **kwargs: Any) -> None:
        """Rename the keys of the value estimator too."""
        if self._value_estimator is not None:
            keys = self.tensor_keys
            names = ("advantage", "value_target", "value", "reward", "done", "terminated")
            self._value_estimator.set_keys(**{name: getattr(keys, name) for name in names})
        super()._forward_value_estimator_keys(**kwargs)

    def _required_keys(self) -> list[NestedKey]:
        """Return the keys that every call reads; masks are optional and not among them."""
        keys, estimator = self.tensor_keys, self._value_estimator
        targets = [keys.advantage, keys.value_target] if estimator is None else estimator.in_keys
        old_value = [] if self.value_clip is None else [keys.value]
        required = [*self._observation_keys, keys.action, keys.sample_log_prob, *targets, *old_value]
        return list(dict.fromkeys(required))

    @property
    def _all_out_keys(self) -> list[str]:
        losses = ["loss_objective", "loss_critic", "loss_entropy", "entropy"]
        return [*losses, *metric_keys(self.value_clip)] if self.log_metrics else losses

    def _networks_to_reset(self) -> list[nn.Module]:
        return super()._networks_to_reset() if self._actor_critic is None else [self._actor_critic]

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Compute the loss of a batch.

        Args:
            tensordict: batch with the keys listed at the class; any batch shape ``*B``.

        Returns:
            TensorDict of losses (scalars, or ``[*B]`` with reduction ``"none"``) and metrics (scalars). If no step is
            valid, losses are 0 and metrics are NaN.

        Raises:
            KeyError: a key is missing.
            ValueError: an entry has another shape than listed at the class.
        """
        return self._output(self.results(tensordict))

    def results(self, tensordict: TensorDictBase) -> dict[Any, Tensor]:
        """Return all entries of a call in a dict, see `DirectLossModule.results`."""
        keys = self.tensor_keys
        if self._value_estimator is not None and tensordict.get(keys.advantage, None) is None:
            with torch.no_grad():
                tensordict = self._value_estimator(tensordict.copy())
        batch = Reader(tensordict)
        mask = batch.mask((keys.mask, *self._loss_mask_keys()), batch.shape)
        if mask is not None:
            entries = tensordict.select(*self.in_keys, keys.advantage, keys.value_target, strict=False)
            batch = Reader(without_masked(entries, mask, in_place=self._is_recurrent))
        steps = self._evaluate(batch)
        if mask is not None and self._is_recurrent:
            steps = steps.where(mask)
        coefficients = self._read_coefficients()
        results = self._losses(steps, mask, coefficients)
        if self.log_metrics:
            bounds = log_ratio_bounds(coefficients["clip_epsilon"], coefficients["clip_epsilon_high"])
            results.update(ppo_metrics(steps, *bounds, self.value_clip))
        return results

    def _losses(self, steps: Steps, mask: Tensor | None, coefficients: dict[str, Any]) -> dict[str, Tensor]:
        """Return the three losses and the entropy."""
        advantage = normalized(steps.advantage) if self.normalize_advantage else steps.advantage
        objective = clipped_surrogate_loss(
            steps.log_probs,
            steps.old_log_probs,
            advantage,
            clip_epsilon=coefficients["clip_epsilon"],
            clip_epsilon_high=coefficients["clip_epsilon_high"],
            dual_clip=self.dual_clip,
        )
        kind = self.value_loss
        critic = clipped_value_loss(steps.value, steps.old_value, steps.value_target, clip=self.value_clip, kind=kind)
        entropy = self._reduce(steps.entropy, mask)
        mean_entropy = entropy if self.reduction == "mean" else masked_mean(steps.entropy)
        return {
            "loss_objective": self._reduce(objective, mask),
            "loss_critic": coefficients["value_coef"] * (0.5 if kind == "l2" else 1.0) * self._reduce(critic, mask),
            "loss_entropy": -coefficients["entropy_coef"] * entropy,
            "entropy": mean_entropy.detach(),
        }

    def _reduce(self, values: Tensor, mask: Tensor | None) -> Tensor:
        """Reduce values of the valid steps."""
        if self.reduction == "mean":
            return masked_mean(values)
        if self.reduction == "sum":
            return values.sum()
        return values if mask is None else values.new_zeros(mask.shape).masked_scatter(mask, values)

    def _evaluate(self, batch: Reader) -> Steps:
        """Run both networks on a batch."""
        keys = self.tensor_keys
        action = batch.get(keys.action)
        network = self._actor_critic
        if network is not None:
            *parameters, value = network(*(batch.get(key) for key in self._observation_keys))
            policy = network.distribution(*parameters)
        else:
            scratch = batch.tensordict.copy()  # both networks write into this copy
            policy = self.actor_network.get_dist(scratch)
            value = self.critic_network(scratch).get(keys.value)
        expected = (*batch.shape, *policy.event_shape)
        if network is not None and action.shape != expected:
            raise ValueError(
                f"{keys.action} must have the shape {expected}, got {tuple(action.shape)}; drop singleton dimensions"
            )
        log_probs = action_log_probs(policy, action, batch.shape)
        old_log_probs = batch.constant(keys.sample_log_prob)
        if not policy.batch_shape == old_log_probs.shape == batch.shape:
            raise ValueError(
                f"log-probabilities must be those of whole actions, {tuple(batch.shape)}, got "
                f"{tuple(policy.batch_shape)} of the policy and {tuple(old_log_probs.shape)} as {keys.sample_log_prob};"
                " sum over dimensions of the action (torch.distributions.Independent), drop singleton ones"
            )
        return Steps(
            log_probs,
            action_entropy(policy, len(batch.shape)),
            value.squeeze(-1),
            old_log_probs,
            batch.per_step(keys.advantage),
            batch.per_step(keys.value_target),
            None if self.value_clip is None else batch.per_step(keys.value),
        )

    def _check_options(self) -> None:
        if self.value_clip is not None and not self.value_clip > 0:
            raise ValueError(f"value_clip must be above 0, got {self.value_clip}; None for no clip")
        if self.value_loss not in VALUE_LOSS_KINDS:
            raise ValueError(f"value_loss must be one of {', '.join(VALUE_LOSS_KINDS)}, got {self.value_loss!r}")
        if not self.value_coef >= 0:
            raise ValueError(f"value_coef must be at least 0, got {float(self.value_coef)}")
        check_reduction(self.reduction)
