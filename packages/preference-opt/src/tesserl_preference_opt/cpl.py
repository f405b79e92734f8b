"""Contrastive preference learning and behaviour cloning as torchrl LossModules: no reference policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from tensordict import NestedKey, TensorDictBase
from tensordict.nn import TensorDictModule, dispatch
from torch import Tensor, nn

from tesserl_policy import DirectLossModule, check_actor, get_entry, masked_mean
from tesserl_policy.loss_module import Reduction, check_reduction, is_used
from tesserl_preference_data.segments import read_segments
from tesserl_preference_opt.functional import (
    cpl_advantage,
    cpl_loss,
    cpl_ranked_loss,
)
from tesserl_preference_opt.metrics import METRICS, preference_metrics
from tesserl_preference_opt.policy import PolicyPass, action_key, check_added_terms
from tesserl_preference_opt.steps import PairKeys, pair_keys, read_pairs


class CPLLoss(DirectLossModule):
    """Contrastive preference learning (Hejna et al. 2024, arXiv:2310.13639), for torchrl's buffers and trainers.

    A call reads one of two kinds of batches:

    - pairs, as `PreferenceLoss` does, without references;
    - ranked segments: ``trajectory`` ``[K, T]`` and their ``score`` ``[K]`` (higher is better). If ``group`` ``[K]`` is
      present, only segments of one group are compared.

    It returns ``loss`` and metrics under TRL's names; a segment's reward is its advantage. ``set_keys`` renames
    entries. The paper begins with behaviour cloning (`BehaviorCloningLoss`) for 40 % of its updates.

    Args:
        actor_network: a torchrl ``ProbabilisticActor`` of any action space, or a module that is called without
            TensorDict: with ``in_keys``, ``policy_parameters(*inputs)`` and ``distribution(*parameters)``.
        critic_network: a TensorDictModule that writes ``state_value``, for ``value_coef``; None takes the actor's
            ``state_value(*inputs)``.
        alpha: entropy temperature, in reward units per nat, above 0.
        bias: weight of the segment that was not preferred, in (0, 1]; below 1 keeps probability on the data.
        discount: weight of a step relative to the step before, in [0, 1].
        length_normalize: average log-probs over the steps of a segment, for segments of unequal length.
        bc_coef: weight of behaviour cloning on all segments; 1 with ``bias=1`` is the paper's CPL-BC.
        entropy_coef: weight of the policy's entropy.
        value_coef: weight of the value loss with targets ``value_target`` ``[P, T, 1]``; 0 runs no critic.
        reduction: ``"mean"`` or ``"sum"`` of the losses of the pairs, or ``"none"`` for each of them, ``[P]``. The
            terms with coefficients are means over all steps, added to the loss of each pair. Ranked segments have
            ``"mean"`` only.

    Raises:
        TypeError: a network is none of those above.
        ValueError: an option is out of its range.
    """

    @dataclass
    class _AcceptedKeys(PairKeys):
        trajectory: NestedKey = "trajectory"
        score: NestedKey = "score"
        group: NestedKey = "group"
        value: NestedKey = "state_value"
        value_target: NestedKey = "value_target"

    tensor_keys: _AcceptedKeys
    default_keys = _AcceptedKeys
    _coefficients = ("alpha", "bc_coef", "entropy_coef", "value_coef")
    alpha: Any
    bc_coef: Any
    entropy_coef: Any
    value_coef: Any
    actor_network: Any  # a module that `tesserl_policy.check_actor` accepts

    def __init__(
        self,
        actor_network: nn.Module,
        critic_network: TensorDictModule | None = None,
        *,
        alpha: float = 0.1,
        bias: float = 0.5,
        discount: float = 1.0,
        length_normalize: bool = False,
        bc_coef: float = 0.0,
        entropy_coef: float = 0.0,
        value_coef: float = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_actor(actor_network)
        self.actor_network, self.critic_network = actor_network, critic_network
        self.alpha = alpha
        self.bias = bias
        self.discount = discount
        self.length_normalize = length_normalize
        self.bc_coef = bc_coef
        self.entropy_coef = entropy_coef
        self.value_coef = value_coef
        self.reduction: Reduction = reduction
        check_reduction(reduction)
        rules = {
            "alpha must be above 0": (alpha > 0, alpha),
            "bias must be in (0, 1]": (0 < bias <= 1, bias),
        }
        for rule, (holds, got) in rules.items():
            if not holds:
                raise ValueError(f"{rule}, got {got}")
        check_added_terms(self)
        self.set_keys(action=action_key(actor_network, "action"))

    def _required_keys(self) -> list[NestedKey]:
        """Return the keys that a call with pairs always reads, without masks and labels, which are optional."""
        keys = self.tensor_keys
        targets = [keys.value_target] if is_used(self._read_coefficients()["value_coef"]) else []
        return pair_keys(keys, [*self.actor_network.in_keys, keys.action, *targets])

    @property
    def _all_out_keys(self) -> list[str]:
        has_value = is_used(self._read_coefficients()["value_coef"])
        return ["loss", *METRICS, *(["value_loss"] if has_value else [])]

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Compute the loss of a batch of pairs, or of ranked segments.

        Args:
            tensordict: the batch, with the keys that the class describes.

        Returns:
            TensorDict of scalars: ``loss`` and metrics.

        Raises:
            KeyError: a key is missing.
            ValueError: an entry has another shape than the class describes.
        """
        return self._output(self.results(tensordict))

    def results(self, tensordict: TensorDictBase) -> dict[Any, Tensor]:
        """Return all entries of a call in a dict, see `DirectLossModule.results`."""
        keys, coefficients = self.tensor_keys, self._read_coefficients()
        trajectory = tensordict.get(keys.trajectory, None)
        if trajectory is None:
            pair, label = read_pairs(tensordict, keys)
            policy = PolicyPass(self.actor_network, pair, keys.action)
            loss, metrics = self._compare(policy, label, coefficients["alpha"])
        elif self.reduction != "mean":
            raise ValueError(f"reduction must be mean for ranked segments, got {self.reduction!r}; give pairs")
        else:
            policy = PolicyPass(self.actor_network, [read_segments(trajectory, keys.mask, "trajectory")], keys.action)
            advantage = self._advantage(policy, coefficients["alpha"])
            score, group = get_entry(tensordict, keys.score).reshape(-1), tensordict.get(keys.group, None)
            loss = cpl_ranked_loss(advantage, score, group, bias=self.bias)
            metrics = _rank_metrics(advantage.detach(), score, group)
        nll = policy.nll()
        loss, more = policy.add_terms(loss + coefficients["bc_coef"] * nll, self, coefficients)
        loss = loss.sum() if self.reduction == "sum" else loss
        return {"loss": loss, **metrics, **more, "nll_loss": nll.detach()}

    def _compare(self, policy: PolicyPass, label: Tensor | None, alpha: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of pairs, their mean if so reduced, and metrics."""
        log_probs, valid = policy.log_probs, policy.steps.valid
        num_pairs = len(log_probs) // 2
        masks = (None, None) if valid is None else (valid[:num_pairs], valid[num_pairs:])
        loss = cpl_loss(
            log_probs[:num_pairs],  # chosen
            log_probs[num_pairs:],
            log_probs.new_zeros(num_pairs) if label is None else 1 - label,
            alpha=alpha,
            bias=self.bias,
            discount=self.discount,
            mask_1=masks[0],
            mask_2=masks[1],
            length_normalize=self.length_normalize,
        )
        with torch.no_grad():
            advantage = self._advantage(policy, alpha).view(2, -1)
            sums = log_probs.sum(dim=-1).view(2, -1)  # 0 on padding
            metrics = preference_metrics(advantage, sums, label)
        return loss.mean() if self.reduction == "mean" else loss, metrics

    def _advantage(self, policy: PolicyPass, alpha: Any) -> Tensor:
        return cpl_advantage(
            policy.log_probs,
            policy.steps.valid,
            alpha=alpha,
            discount=self.discount,
            length_normalize=self.length_normalize,
        )


class BehaviorCloningLoss(DirectLossModule):
    """Behaviour cloning, ``-log pi(a, s)`` per step: pretraining on the data of a preference loss.

    A call reads pairs as `CPLLoss` does. If there is no ``chosen``, it reads steps ``[B]`` or padded segments
    ``[P, T]`` with the policy's observations, ``action`` and, if present, ``mask``. It returns ``loss``, ``nll_loss``
    and ``entropy``.

    Args:
        actor_network: see `CPLLoss`.
        side: segments of a pair that are cloned, ``"chosen"`` or ``"all"``.
        entropy_coef: weight of the policy's entropy.
        reduction: ``"mean"`` or ``"sum"`` over the valid steps, or ``"none"`` for each of them, in the shape of the
            steps (of pairs: chosen, then rejected), with 0 on padding. The weighted entropy is a mean over all steps,
            added to the loss of each.

    Raises:
        TypeError: the network is none of those above.
        ValueError: ``side`` is unknown.
    """

    _AcceptedKeys = PairKeys
    tensor_keys: PairKeys
    default_keys = PairKeys
    _coefficients = ("entropy_coef",)
    entropy_coef: Any
    actor_network: Any  # a module that `tesserl_policy.check_actor` accepts
    critic_network = None

    def __init__(
        self,
        actor_network: nn.Module,
        *,
        side: Literal["chosen", "all"] = "chosen",
        entropy_coef: float = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_actor(actor_network)
        if side not in ("chosen", "all"):
            raise ValueError(f"side must be chosen or all, got {side!r}")
        self.actor_network = actor_network
        self.side = side
        self.entropy_coef = entropy_coef
        self.reduction: Reduction = reduction
        check_reduction(reduction)
        self.set_keys(action=action_key(actor_network, "action"))

    def _required_keys(self) -> list[NestedKey]:
        """Return the keys that a call with steps always reads, without the mask, which is optional."""
        return [*self.actor_network.in_keys, self.tensor_keys.action]

    @property
    def _all_out_keys(self) -> list[str]:
        return ["loss", "nll_loss", "entropy"]

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Compute the loss of a batch.

        Args:
            tensordict: the batch, with the keys that the class describes.

        Returns:
            TensorDict of scalars: ``loss`` and metrics.

        Raises:
            KeyError: a key is missing.
            ValueError: an entry has another shape than the class describes.
        """
        return self._output(self.results(tensordict))

    def results(self, tensordict: TensorDictBase) -> dict[Any, Tensor]:
        """Return all entries of a call in a dict, see `DirectLossModule.results`."""
        keys = self.tensor_keys
        is_steps = tensordict.get(keys.chosen, None) is None
        if not is_steps:
            segments = list(read_pairs(tensordict, keys)[0])[: 1 if self.side == "chosen" else 2]
        else:
            rows = tensordict if len(tensordict.batch_size) == 2 else tensordict.reshape(1, -1)
            segments = [read_segments(rows, keys.mask)]
        policy = PolicyPass(self.actor_network, segments, keys.action)
        nll, coefficients = policy.nll(), self._read_coefficients()
        loss = nll if self.reduction == "mean" else -policy.flat_log_probs
        loss, metrics = policy.add_terms(loss, self, coefficients)
        if self.reduction != "mean":
            loss = policy.steps.unpack(loss)  # 0 on padding
            loss = loss.sum() if self.reduction == "sum" else loss.reshape(tensordict.shape if is_steps else loss.shape)
        return {"loss": loss, "nll_loss": nll.detach(), **metrics}


def _rank_metrics(advantage: Tensor, score: Tensor, group: Tensor | None) -> dict[str, Tensor]:
    """Return the share of comparisons in the order of their scores, and the mean margin."""
    better = score.unsqueeze(1) > score.unsqueeze(0)
    if group is not None:
        better &= group.unsqueeze(1) == group.unsqueeze(0)
    margins = advantage.unsqueeze(1) - advantage.unsqueeze(0)
    return {
        "rewards/accuracies": masked_mean((margins > 0).float(), better),
        "rewards/margins": masked_mean(margins, better),
    }
