"""Kahneman-Tversky optimisation and its variants as a torchrl LossModule, for segments labelled good or bad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from tensordict import NestedKey, TensorDictBase
from tensordict.nn import dispatch
from torch import Tensor, nn

from tesserl_policy import DirectLossModule, ReferencePolicy, action_log_probs, check_actor, get_entry
from tesserl_policy.loss_module import Reduction, check_reduction
from tesserl_preference_data.segments import Segments, read_segments
from tesserl_preference_opt.functional import bco_loss, kto_loss
from tesserl_preference_opt.functional.unpaired import UNPAIRED_LOSS_TYPES, UnpairedLossType
from tesserl_preference_opt.policy import PolicyPass, action_key, check_added_terms
from tesserl_preference_opt.reference_log_probs import reference_log_probs, reference_source
from tesserl_preference_opt.steps import PairKeys, Steps, device_of, read_pairs


class KTOLoss(DirectLossModule):
    """KTO (Ethayarajh et al. 2024, arXiv:2402.01306): learn from single segments that are good or bad.

    A call reads ``trajectory``, padded segments ``[P, T]`` with the policy's observations, ``action`` and ``mask``, and
    ``desirable`` ``[P]``, bool. Or it reads pairs as `PreferenceLoss` does: chosen segments are good, rejected ones
    bad. A batch needs at least two segments. ``set_keys`` renames entries.

    It returns ``loss``, the reference point ``kl`` of ``kto``, ``entropy``, and metrics under TRL's names. In these
    names ``chosen`` means the good segments; the metric is NaN if a batch has none.

    The loss holds the reference policy, because the reference point needs its log-probs of mismatched actions. The
    reference is in the state dict, not among the parameters. Call `update_reference` after each optimisation step.

    Args:
        actor_network: a torchrl ``ProbabilisticActor`` of any action space, or a module that is called without
            TensorDict: with ``in_keys``, ``policy_parameters(*inputs)`` and ``distribution(*parameters)``.
        loss_type: ``"kto"``; ``"apo_zero_unpaired"``, the same with a reference point of 0; or ``"bco"``, see
            `bco_loss`. The buffer ``reward_shift`` of ``"bco"`` is the mean reward of all training batches.
        beta: strength of the pull towards the reference, above 0.
        desirable_weight: weight of good segments; see `kto_loss` for unequal numbers of good and bad.
        undesirable_weight: weight of bad ones.
        discount: weight of a step relative to the step before, in [0, 1].
        length_normalize: average log-probs over the steps of a segment.
        reference_network: ``"copy"`` for a copy of the actor as it is now, or a policy, which is copied.
        reference_sync_interval: see `ReferencePolicy`; None for a frozen reference.
        reference_update_rate: see `ReferencePolicy`.
        entropy_coef: weight of the policy's entropy.
        reduction: ``"mean"`` or ``"sum"`` of the losses of the segments, or ``"none"`` for each of them, ``[P]``. The
            weighted entropy is a mean over all steps, added to the loss of each segment.

    Raises:
        TypeError: a network is none of those above.
        ValueError: an option is out of its range.
    """

    @dataclass
    class _AcceptedKeys(PairKeys):
        trajectory: NestedKey = "trajectory"
        desirable: NestedKey = "desirable"

    tensor_keys: _AcceptedKeys
    default_keys = _AcceptedKeys
    _coefficients = ("beta", "entropy_coef")
    beta: Any
    entropy_coef: Any
    actor_network: Any  # a module that `tesserl_policy.check_actor` accepts
    critic_network = None
    value_coef = 0.0

    def __init__(
        self,
        actor_network: nn.Module,
        *,
        loss_type: UnpairedLossType = "kto",
        beta: float = 0.1,
        desirable_weight: float = 1.0,
        undesirable_weight: float = 1.0,
        discount: float = 1.0,
        length_normalize: bool = False,
        reference_network: nn.Module | Literal["copy"] = "copy",
        reference_sync_interval: int | None = None,
        reference_update_rate: float = 1.0,
        entropy_coef: float = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_actor(actor_network)
        if loss_type not in UNPAIRED_LOSS_TYPES:
            raise ValueError(f"loss_type must be one of {', '.join(UNPAIRED_LOSS_TYPES)}, got {loss_type!r}")
        self.actor_network = actor_network
        self.loss_type: UnpairedLossType = loss_type
        self.beta = beta
        self.desirable_weight = desirable_weight
        self.undesirable_weight = undesirable_weight
        self.discount = discount
        self.length_normalize = length_normalize
        self.entropy_coef = entropy_coef
        self.reduction: Reduction = reduction
        check_reduction(reduction)
        if not beta > 0:
            raise ValueError(f"beta must be above 0, got {beta}")
        check_added_terms(self)
        self.reference = ReferencePolicy(
            reference_source(actor_network, reference_network),
            interval=reference_sync_interval,
            rate=reference_update_rate,
        )
        if loss_type == "bco":
            self.register_buffer("reward_shift", torch.zeros(()))
            self.register_buffer("reward_count", torch.zeros((), dtype=torch.int64))
        self.set_keys(action=action_key(actor_network, "action"))

    def _required_keys(self) -> list[NestedKey]:
        """Return the keys that a call with single segments always reads, without the mask, which is optional."""
        keys = self.tensor_keys
        entries = dict.fromkeys([*self.actor_network.in_keys, keys.action])
        return [*((keys.trajectory, *((each,) if isinstance(each, str) else each)) for each in entries), keys.desirable]

    @property
    def _all_out_keys(self) -> list[str]:
        metrics = ["chosen", "rejected", "margins"]
        rewards, log_probs = [f"rewards/{name}" for name in metrics], [f"logps/{name}" for name in metrics[:2]]
        return ["loss", *["kl"] * (self.loss_type == "kto"), "entropy", *rewards, *log_probs]

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Compute the loss of a batch.

        Args:
            tensordict: the batch, with the keys that the class describes.

        Returns:
            TensorDict of scalars: ``loss`` and metrics.

        Raises:
            KeyError: a key is missing.
            ValueError: an entry has another shape than the class describes, or there is only one segment.
        """
        return self._output(self.results(tensordict))

    def results(self, tensordict: TensorDictBase) -> dict[Any, Tensor]:
        """Return all entries of a call in a dict, see `DirectLossModule.results`."""
        coefficients = self._read_coefficients()
        segments, desirable = self._read(tensordict)
        policy = PolicyPass(self.actor_network, segments, self.tensor_keys.action)
        steps = policy.steps
        log_probs = self._sum(policy.flat_log_probs, steps)
        held, kl = self._reference_point(policy)
        with torch.no_grad():
            rewards = coefficients["beta"] * (log_probs - held)
        options = {
            "beta": coefficients["beta"],
            "desirable_weight": self.desirable_weight,
            "undesirable_weight": self.undesirable_weight,
        }
        if self.loss_type == "bco":
            loss = bco_loss(log_probs, held, desirable, self._shift(rewards), **options)
        else:
            loss = kto_loss(log_probs, held, desirable, 0.0 if kl is None else kl, **options)
        loss = loss.mean() if self.reduction == "mean" else loss
        loss, metrics = policy.add_terms(loss, self, coefficients)
        loss = loss.sum() if self.reduction == "sum" else loss
        with torch.no_grad():
            metrics.update(_metrics(rewards, log_probs, desirable))
        return {"loss": loss, **({} if kl is None else {"kl": kl}), **metrics}

    def _reference_point(self, policy: PolicyPass) -> tuple[Tensor, Tensor | None]:
        """Return the reference's log-probs, ``[P]``, and the mean log-ratio of mismatched actions, for kto alone."""
        steps = policy.steps
        if self.loss_type != "kto":
            return self._sum(reference_log_probs(self.reference, steps, policy.action)[0], steps), None
        elsewhere = steps.elsewhere(policy.action)
        reference, reference_elsewhere = reference_log_probs(self.reference, steps, policy.action, elsewhere)
        with torch.no_grad():
            mismatched = action_log_probs(policy.distribution, elsewhere, steps.batch_size)
            kl = self._sum(mismatched - reference_elsewhere, steps).mean().clamp_min(0)
        return self._sum(reference, steps), kl

    def _shift(self, rewards: Tensor) -> Tensor:
        """Update the mean reward with a batch, in training mode only, and return the mean."""
        shift, count = cast("Tensor", self.reward_shift), cast("Tensor", self.reward_count)
        if self.training and torch.is_grad_enabled():
            count.add_(len(rewards))
            shift.add_((rewards.mean() - shift) * len(rewards) / count)
        return shift.clone()

    def update_reference(self) -> None:
        """Count an update of the policy; the reference follows when its interval is over."""
        self.reference.step(self.actor_network)

    def _read(self, tensordict: TensorDictBase) -> tuple[Sequence[Segments], Tensor]:
        """Return segments and the probability that each is good, ``[P]`` (of pairs: chosen, then rejected)."""
        keys = self.tensor_keys
        trajectory = tensordict.get(keys.trajectory, None)
        if trajectory is None:
            segments, label = read_pairs(tensordict, keys)
            good = torch.ones(len(segments[0].mask), device=device_of(segments[0])) if label is None else label
            return segments, torch.cat([good, 1 - good])
        single = read_segments(trajectory, keys.mask, "trajectory")
        if len(single.mask) < 2:
            raise ValueError(
                f"a batch must have two segments or more, got {len(single.mask)}: KL needs others' actions"
            )
        return (single,), get_entry(tensordict, keys.desirable, siblings=("chosen",)).reshape(-1).float()

    def _sum(self, log_probs: Tensor, steps: Steps) -> Tensor:
        """Return sums, or averages, of all segments, ``[P]``."""
        sums = steps.sums(log_probs, discount=self.discount)
        return sums / steps.lengths(discount=self.discount).clamp_min(1) if self.length_normalize else sums


def _metrics(rewards: Tensor, log_probs: Tensor, desirable: Tensor) -> dict[str, Tensor]:
    """Return means over good and over bad segments."""
    good, bad = desirable / desirable.sum(), (1 - desirable) / (1 - desirable).sum()
    return {
        "rewards/chosen": (good * rewards).sum(),
        "rewards/rejected": (bad * rewards).sum(),
        "rewards/margins": ((good - bad) * rewards).sum(),
        "logps/chosen": (good * log_probs).sum(),
        "logps/rejected": (bad * log_probs).sum(),
    }
