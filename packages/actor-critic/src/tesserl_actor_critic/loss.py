"""The PPO loss as a torchrl LossModule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, dispatch
from torch import Tensor, nn
from torch.distributions import Distribution
from torchrl.objectives import LossModule

from tesserl_actor_critic.functional import (
    VALUE_LOSS_KINDS,
    ValueLossKind,
    check_clip,
    clipped_surrogate_loss,
    clipped_value_loss,
    log_bounds,
    masked_mean,
    normalized,
)
from tesserl_actor_critic.network import ActorCritic


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

    Raises:
        TypeError: the networks are none of those above.
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

    actor_network: nn.Module
    critic_network: nn.Module

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
    ) -> None:
        super().__init__()
        self.clip_epsilon = clip_epsilon
        self.clip_epsilon_high = clip_epsilon_high
        self.dual_clip = dual_clip
        self.value_clip = value_clip
        self.value_loss_kind = value_loss  # torchrl wraps attributes whose names end in "loss"
        self.value_coef = value_coef
        self.entropy_coef = entropy_coef
        self.normalize_advantage = normalize_advantage
        self._check_options()
        if isinstance(actor_network, ActorCritic) and critic_network is None:
            actor_network, critic_network = actor_network.actor, actor_network.critic
        if not hasattr(actor_network, "get_dist") or not hasattr(critic_network, "in_keys"):
            raise TypeError(
                "networks must be an ActorCritic, or a ProbabilisticActor and a TensorDictModule for the value, got "
                f"{type(actor_network).__name__} and {type(critic_network).__name__}"
            )
        self.actor_network, self.critic_network = actor_network, critic_network
        networks = [network.__dict__.get("actor_critic") for network in (actor_network, critic_network)]
        # unregistered: its parameters are those of the two above
        self.__dict__["_actor_critic"] = networks[0] if networks[0] is networks[1] else None
        if self._actor_critic is None:
            self.set_keys(action=actor_network.dist_sample_keys[0], sample_log_prob=actor_network.log_prob_keys[0])

    @property
    def functional(self) -> bool:
        """False: the networks are registered as they are."""
        return False

    @property
    def in_keys(self) -> list[NestedKey]:
        """Keys that a call reads always; masks, read where present, are not among them."""
        keys = self.tensor_keys
        observations = dict.fromkeys([*self.actor_network.in_keys, *self.critic_network.in_keys])
        old_value = [] if self.value_clip is None else [keys.value]
        return [*observations, keys.action, keys.sample_log_prob, keys.advantage, keys.value_target, *old_value]

    @property
    def out_keys(self) -> list[str]:
        """Keys of what a call returns."""
        keys = ["loss_objective", "clip_fraction", "entropy", "loss_entropy", "loss_critic", "explained_variance"]
        value_clip = [] if self.value_clip is None else ["value_clip_fraction"]
        return [*keys, *value_clip, "ESS", "kl_approx", "max_ratio", "mean_ratio"]

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Compute the loss of a batch.

        Args:
            tensordict: the batch, with the keys that the class describes; any batch shape ``*B``.

        Returns:
            TensorDict of scalars: losses and metrics.

        Raises:
            KeyError: a key is missing.
            ValueError: an entry has another shape than the class describes.
        """
        mask = self._read_mask(tensordict)
        if mask is not None:
            tensordict = tensordict.select(*self.in_keys)
            if "is_init" in self.actor_network.in_keys:
                tensordict = tensordict.apply(lambda entry: _fill_masked(entry, mask))
            else:
                tensordict, mask = tensordict[mask], None
        log_probs, entropy, value = self._evaluate(tensordict)
        keys = self.tensor_keys
        old_log_probs = self._read(tensordict, keys.sample_log_prob)
        advantage = self._read(tensordict, keys.advantage, 1).squeeze(-1)
        target = self._read(tensordict, keys.value_target, 1).squeeze(-1)
        old_value = None if self.value_clip is None else self._read(tensordict, keys.value, 1).squeeze(-1)
        if mask is not None:
            log_probs, entropy, value = log_probs[mask], entropy[mask], value[mask]
            old_log_probs, advantage, target = old_log_probs[mask], advantage[mask], target[mask]
            old_value = None if old_value is None else old_value[mask]
        losses = self._losses(log_probs, entropy, value, old_log_probs, advantage, target, old_value)
        with torch.no_grad():
            losses.update(self._metrics(log_probs - old_log_probs, entropy, value, target, old_value))
        return TensorDict(losses)

    def _losses(
        self,
        log_probs: Tensor,
        entropy: Tensor,
        value: Tensor,
        old_log_probs: Tensor,
        advantage: Tensor,
        target: Tensor,
        old_value: Tensor | None,
    ) -> dict[str, Tensor]:
        """Return the three losses of valid steps, all arguments ``[B]``."""
        objective = clipped_surrogate_loss(
            log_probs,
            old_log_probs,
            normalized(advantage) if self.normalize_advantage else advantage,
            clip_epsilon=self.clip_epsilon,
            clip_epsilon_high=self.clip_epsilon_high,
            dual_clip=self.dual_clip,
        )
        critic = clipped_value_loss(value, old_value, target, clip=self.value_clip, kind=self.value_loss_kind)
        value_coef = self.value_coef * (0.5 if self.value_loss_kind == "l2" else 1.0)
        return {
            "loss_objective": masked_mean(objective),
            "loss_critic": value_coef * masked_mean(critic),
            "loss_entropy": -self.entropy_coef * masked_mean(entropy),
        }

    def _metrics(
        self, log_ratio: Tensor, entropy: Tensor, value: Tensor, target: Tensor, old_value: Tensor | None
    ) -> dict[str, Tensor]:
        """Return the metrics of valid steps, all arguments ``[B]``."""
        low, high = log_bounds(self.clip_epsilon, self.clip_epsilon_high)
        ratio = log_ratio.exp()
        num_steps = max(ratio.numel(), 1)
        residual, total = (target - value).var(correction=0), target.var(correction=0)
        metrics = {
            "entropy": masked_mean(entropy),
            "kl_approx": -masked_mean(log_ratio),
            "clip_fraction": masked_mean((log_ratio != log_ratio.clamp(low, high)).float()),
            "ESS": ratio.sum().square() / (ratio.square().sum() * num_steps),
            "max_ratio": ratio.max(),
            "mean_ratio": masked_mean(ratio),
            "explained_variance": 1 - residual / (total + torch.finfo(total.dtype).eps),
        }
        if old_value is not None:
            metrics["value_clip_fraction"] = masked_mean(((value - old_value).abs() > self.value_clip).float())
        return metrics

    def _evaluate(self, tensordict: TensorDictBase) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-probabilities, entropies and values, ``[*B]`` each."""
        action = self._get(tensordict, self.tensor_keys.action)
        network = self._actor_critic
        if network is not None:
            *parameters, value = network(*(self._get(tensordict, key) for key in network.in_keys))
            policy = network.distribution(*parameters)
        else:
            scratch = tensordict.copy()  # both networks write into it
            policy = self.actor_network.get_dist(scratch)
            value = self.critic_network(scratch).get(self.tensor_keys.value)
        log_probs = policy.log_prob(action)
        if log_probs.shape != tensordict.batch_size:
            raise ValueError(
                f"log-probabilities must be those of whole actions, {tuple(tensordict.batch_size)}, got "
                f"{tuple(log_probs.shape)} for actions {tuple(action.shape)}; drop singleton dimensions of the action, "
                "or sum dimensions with torch.distributions.Independent"
            )
        return log_probs, _entropy(policy), value.squeeze(-1)

    def _read_mask(self, tensordict: TensorDictBase) -> Tensor | None:
        """Return where steps are valid, bool ``[*B]``; None for everywhere."""
        valid = None
        for key in (self.tensor_keys.mask, *self._loss_mask_keys()):
            mask = tensordict.get(key, None)
            if mask is not None:
                mask = mask.reshape(tensordict.batch_size).bool()
                valid = mask if valid is None else valid & mask
        return valid

    def _read(self, tensordict: TensorDictBase, key: NestedKey, *last: int) -> Tensor:
        """Return an entry of shape ``[*B, *last]``."""
        entry = self._get(tensordict, key)
        if entry.shape != (*tensordict.batch_size, *last):
            raise ValueError(
                f"{key} must have the shape {(*tensordict.batch_size, *last)}, got {tuple(entry.shape)}; "
                "add or drop the last, singleton dimension"
            )
        return entry

    def _get(self, tensordict: TensorDictBase, key: NestedKey) -> Tensor:
        entry = tensordict.get(key, None)
        if entry is None:
            present = sorted(map(str, tensordict.keys()))
            raise KeyError(f"expected the key {key!r}, the batch has {present}; rename keys with set_keys")
        return entry

    def _check_options(self) -> None:
        check_clip(self.clip_epsilon, self.clip_epsilon_high, self.dual_clip)
        if self.value_clip is not None and not self.value_clip > 0:
            raise ValueError(f"value_clip must be above 0, got {self.value_clip}; None for no clip")
        if self.value_loss_kind not in VALUE_LOSS_KINDS:
            raise ValueError(f"value_loss must be one of {', '.join(VALUE_LOSS_KINDS)}, got {self.value_loss_kind!r}")
        if not self.value_coef >= 0:
            raise ValueError(f"value_coef must be at least 0, got {self.value_coef}")

    def _forward_value_estimator_keys(self, **kwargs: Any) -> None:
        """Do nothing: advantages are computed before, once for a rollout."""


def _entropy(policy: Distribution) -> Tensor:
    """Return the entropy; of distributions without a closed form an estimate from one draw."""
    try:
        return policy.entropy()
    except NotImplementedError:
        return -policy.log_prob(policy.rsample())


def _fill_masked(entry: Tensor, mask: Tensor) -> Tensor:
    """Return zeros where steps are masked: NaN times a gradient of zero would be NaN."""
    return entry.masked_fill(~mask.reshape(mask.shape + (1,) * (entry.dim() - mask.dim())), 0)
