"""The PPO loss as a torchrl LossModule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, dispatch
from torch import Tensor, nn
from torchrl.objectives import LossModule

from tesserl_actor_critic.batch import Reader, Steps, without_masked
from tesserl_actor_critic.functional import (
    VALUE_LOSS_KINDS,
    ValueLossKind,
    check_clip,
    clipped_surrogate_loss,
    clipped_value_loss,
    normalized,
)
from tesserl_actor_critic.network import ActorCritic
from tesserl_policy import action_entropy, action_log_probs, log_ratio_bounds, masked_mean


class PPOLoss(LossModule):
    """PPO's clipped loss (Schulman et al. 2017, arXiv:1707.06347), for torchrl's collectors, buffers and trainers.

    ``loss_objective`` is the mean of the clipped surrogate, ``loss_critic`` is ``value_coef`` times the mean value
    loss (of ``"l2"`` one half of the squared error, as CleanRL's), ``loss_entropy`` is ``-entropy_coef`` times the
    mean entropy; train on their sum.

    Reads the observation keys of both networks, ``action``, ``action_log_prob`` ``[*B]``, ``advantage`` and
    ``value_target`` ``[*B, 1]``, and with a value clip ``state_value`` ``[*B, 1]``, the value when acting.
    Where it is present it obeys ``mask`` ``[*B]``, true on valid steps, and the masks that torchrl writes
    (``loss_mask_key``): masked steps move no loss, no metric and no statistic. ``set_keys`` renames keys.

    Around an `ActorCritic` the network is called directly, a shared body once. With a recurrent body, or torchrl's
    recurrent modules, batches are ``[num_envs, T]`` and sequences stay whole. Schedules assign the attributes
    (``loss.clip_epsilon = 0.1``, ``clip_epsilon_high``, ``entropy_coef``) between updates.

    Metrics, without gradient: ``entropy``; ``kl_approx``, the mean of ``-log r`` (and ``mean_ratio - 1 + kl_approx``
    is Schulman's estimate, which is never negative); ``clip_fraction``; ``ESS``, the effective sample size as a
    fraction; ``max_ratio``, ``mean_ratio``; ``explained_variance``; ``value_clip_fraction`` with a value clip.

    Args:
        actor_network: an `ActorCritic`, its ``actor``, or any torchrl ``ProbabilisticActor`` with one action.
        critic_network: a module that writes ``state_value``; not given with an `ActorCritic`.
        clip_epsilon: how far the ratio may fall below 1, and rise above it unless the next says so, in [0, 1).
        clip_epsilon_high: how far the ratio may rise above 1, at least 0; None for ``clip_epsilon``.
        dual_clip: largest ratio where the advantage is negative, above 1; None for no bound.
        value_clip: how far the value may move from the old one, in reward units, above 0; None for no clip.
        value_loss: ``"l2"`` or ``"smooth_l1"``.
        value_coef: weight of the value loss, at least 0.
        entropy_coef: weight of the entropy, in reward units per nat.
        normalize_advantage: whether each batch's advantages are given mean 0 and standard deviation 1.
        log_metrics: whether to return the metrics besides the entropy; may be assigned. Without them a small update
            is about a tenth faster.

    Raises:
        TypeError: the networks are none of those above, or have nothing to train.
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

    tensor_keys: _AcceptedKeys
    default_keys = _AcceptedKeys

    actor_network: Any
    critic_network: Any
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
        log_metrics: bool = True,
    ) -> None:
        super().__init__()
        self.clip_epsilon = clip_epsilon
        self.clip_epsilon_high = clip_epsilon_high
        self.dual_clip = dual_clip
        self.value_clip = value_clip
        self.value_loss: ValueLossKind = value_loss
        self.value_coef = value_coef
        self.entropy_coef = entropy_coef
        self.normalize_advantage = normalize_advantage
        self.log_metrics = log_metrics
        self._check_options()
        actor, critic = _faces(actor_network, critic_network)
        self.actor_network, self.critic_network = actor, critic
        owners = [face.__dict__.get("actor_critic") for face in (actor, critic)]
        # not registered: its parameters are those of the two above
        self.__dict__["_actor_critic"] = owners[0] if owners[0] is owners[1] else None
        self._observation_keys: list[NestedKey] = list(dict.fromkeys([*actor.in_keys, *critic.in_keys]))
        self._is_recurrent = "is_init" in self._observation_keys
        self._forward_pre_hooks.clear()  # torchrl's check that target networks are updated: there are none
        self.set_keys(action=actor.dist_sample_keys[0], sample_log_prob=actor.log_prob_keys[0])

    @property
    def functional(self) -> bool:
        """False: the networks are registered as they are."""
        return False

    @property
    def in_keys(self) -> list[NestedKey]:
        """Keys that a call reads always; masks, read where present, are not among them."""
        keys = self.tensor_keys
        old_value = [] if self.value_clip is None else [keys.value]
        return [
            *self._observation_keys,
            keys.action,
            keys.sample_log_prob,
            keys.advantage,
            keys.value_target,
            *old_value,
        ]

    @property
    def out_keys(self) -> list[str]:
        """Keys of what a call returns."""
        losses = ["loss_objective", "loss_critic", "loss_entropy", "entropy"]
        return [*losses, *self._metric_keys] if self.log_metrics else losses

    @property
    def _metric_keys(self) -> list[str]:
        value_clip = [] if self.value_clip is None else ["value_clip_fraction"]
        return ["clip_fraction", "kl_approx", "ESS", "max_ratio", "mean_ratio", "explained_variance", *value_clip]

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Compute the loss of a batch.

        Args:
            tensordict: the batch, with the keys that the class describes; any batch shape ``*B``.

        Returns:
            TensorDict of scalars: losses and metrics. Where no step is valid the losses are 0 and metrics NaN.

        Raises:
            KeyError: a key is missing.
            ValueError: an entry has another shape than the class describes.
        """
        batch = Reader(tensordict)
        mask = batch.mask((self.tensor_keys.mask, *self._loss_mask_keys()), batch.shape)
        if mask is not None:
            valid = without_masked(tensordict.select(*self.in_keys, strict=False), mask, in_place=self._is_recurrent)
            batch = Reader(valid)
        steps = self._evaluate(batch)
        if mask is not None and self._is_recurrent:
            steps = steps.where(mask)
        losses = self._losses(steps)
        if self.log_metrics:
            losses.update(self._metrics(steps))
        return TensorDict(losses, [])

    def _losses(self, steps: Steps) -> dict[str, Tensor]:
        """Return the three losses, and the entropy, which is known by then."""
        advantage = normalized(steps.advantage) if self.normalize_advantage else steps.advantage
        objective = clipped_surrogate_loss(
            steps.log_probs,
            steps.old_log_probs,
            advantage,
            clip_epsilon=self.clip_epsilon,
            clip_epsilon_high=self.clip_epsilon_high,
            dual_clip=self.dual_clip,
        )
        kind = self.value_loss
        critic = clipped_value_loss(steps.value, steps.old_value, steps.value_target, clip=self.value_clip, kind=kind)
        entropy = masked_mean(steps.entropy)
        return {
            "loss_objective": masked_mean(objective),
            "loss_critic": self.value_coef * (0.5 if kind == "l2" else 1.0) * masked_mean(critic),
            "loss_entropy": -self.entropy_coef * entropy,
            "entropy": entropy.detach(),
        }

    def _metrics(self, steps: Steps) -> dict[str, Tensor]:
        """Return the metrics besides the entropy."""
        log_ratio = steps.log_probs.detach() - steps.old_log_probs
        value, target = steps.value.detach(), steps.value_target
        ratio = log_ratio.exp()
        if not ratio.numel():
            return dict.fromkeys(self._metric_keys, ratio.new_full((), torch.nan))
        low, high = log_ratio_bounds(self.clip_epsilon, self.clip_epsilon_high)
        variance, mean_ratio = torch.var_mean(ratio, correction=0)
        unexplained, _ = torch.var_mean(target - value, correction=0)
        total, _ = torch.var_mean(target, correction=0)
        squared_mean = mean_ratio * mean_ratio
        metrics = {
            "clip_fraction": (log_ratio != log_ratio.clamp(low, high)).mean(dtype=ratio.dtype),
            "kl_approx": -log_ratio.mean(),
            "ESS": squared_mean / (variance + squared_mean),
            "max_ratio": ratio.max(),
            "mean_ratio": mean_ratio,
            "explained_variance": (total - unexplained) / (total + torch.finfo(total.dtype).eps),
        }
        if self.value_clip is not None and steps.old_value is not None:
            moved = (value - steps.old_value).abs()
            metrics["value_clip_fraction"] = (moved > self.value_clip).mean(dtype=moved.dtype)
        return metrics

    def _evaluate(self, batch: Reader) -> Steps:
        """Run both networks on a batch."""
        keys = self.tensor_keys
        action = batch.get(keys.action)
        network = self._actor_critic
        if network is not None:
            *parameters, value = network(*(batch.get(key) for key in self._observation_keys))
            policy = network.distribution(*parameters)
        else:
            scratch = batch.tensordict.copy()  # both networks write into it
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
        check_clip(self.clip_epsilon, self.clip_epsilon_high, self.dual_clip)
        if self.value_clip is not None and not self.value_clip > 0:
            raise ValueError(f"value_clip must be above 0, got {self.value_clip}; None for no clip")
        if self.value_loss not in VALUE_LOSS_KINDS:
            raise ValueError(f"value_loss must be one of {', '.join(VALUE_LOSS_KINDS)}, got {self.value_loss!r}")
        if not self.value_coef >= 0:
            raise ValueError(f"value_coef must be at least 0, got {self.value_coef}")

    def _forward_value_estimator_keys(self, **kwargs: Any) -> None:
        """Do nothing: advantages are computed before, once for a rollout."""


def _faces(actor: Any, critic: Any) -> tuple[Any, Any]:
    """Return a policy and a value, both of them modules for TensorDicts."""
    if isinstance(actor, ActorCritic) and critic is None:
        return actor.actor, actor.critic
    if not hasattr(actor, "get_dist") or not hasattr(critic, "in_keys"):
        raise TypeError(
            "networks must be an ActorCritic, or a ProbabilisticActor and a TensorDictModule for the value, got "
            f"{type(actor).__name__} and {type(critic).__name__}"
        )
    if len(actor.dist_sample_keys) != 1:
        raise TypeError(
            f"actor_network must have one action, got {actor.dist_sample_keys}; use torchrl's ClipPPOLoss for several"
        )
    for name, network in (("actor_network", actor), ("critic_network", critic)):
        if next(network.parameters(), None) is None:
            raise TypeError(
                f"{name} must have parameters to train, got a module without any; build it around an nn.Module, not "
                "around a function"
            )
    return actor, critic
