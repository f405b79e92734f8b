"""Contrastive preference learning and behaviour cloning as torchrl LossModules: no reference policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, dispatch
from torch import Tensor, nn
from torchrl.objectives import LossModule

from tesserl_policy import check_actor, get_entry, masked_mean
from tesserl_preference_data.segments import read_segments
from tesserl_preference_opt.functional import (
    cpl_advantage,
    cpl_advantage_loss,
    cpl_ranked_loss,
)
from tesserl_preference_opt.metrics import METRICS, preference_metrics
from tesserl_preference_opt.policy import PolicyPass, action_key, check_added_terms
from tesserl_preference_opt.steps import PairKeys, pair_keys, read_pairs


class CPLLoss(LossModule):
    """Contrastive preference learning (Hejna et al. 2024, arXiv:2310.13639), for torchrl's buffers and trainers.

    Reads pairs as `PreferenceLoss` does, without references; or ranked segments: ``trajectory`` ``[K, T]``, their
    ``score`` ``[K]`` (the better the larger) and, where it is present, ``group`` ``[K]``, within which they are
    compared. ``set_keys`` renames them all. Returns ``loss`` and metrics under TRL's names; a segment's reward is its
    advantage. The paper trains by behaviour cloning first (`BehaviorCloningLoss`), for 40 % of its updates.

    Args:
        actor_network: a torchrl ``ProbabilisticActor`` of any action space, or a module that is called without
            TensorDict: with ``in_keys``, ``policy_parameters(*inputs)`` and ``distribution(*parameters)``.
        critic_network: a TensorDictModule that writes ``state_value``, for ``value_coef``; None takes the actor's
            ``state_value(*inputs)``.
        alpha: entropy temperature, in reward units per nat, above 0.
        bias: weight of the segment that was not preferred, in (0, 1]; below 1 keeps probability on the data.
        discount: weight of a step by that of the step before, in [0, 1].
        length_normalize: whether log-probs are averages over the steps of a segment: for unequally long segments.
        bc_coef: weight of behaviour cloning on all segments; with ``bias=1`` and 1 it is the paper's CPL-BC.
        entropy_coef: weight of the policy's entropy.
        value_coef: weight of the value loss onto ``value_target`` ``[P, T, 1]``; 0 runs no critic.

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
        rules = {
            "alpha must be above 0": (alpha > 0, alpha),
            "bias must be in (0, 1]": (0 < bias <= 1, bias),
        }
        for rule, (holds, got) in rules.items():
            if not holds:
                raise ValueError(f"{rule}, got {got}")
        check_added_terms(self)
        self.set_keys(action=action_key(actor_network, "action"))

    @property
    def functional(self) -> bool:
        """False: the networks are registered as they are."""
        return False

    @property
    def in_keys(self) -> list[NestedKey]:
        """Keys that a call with pairs reads always; masks and labels, read where present, are not among them."""
        keys = self.tensor_keys
        targets = [keys.value_target] if self.value_coef else []
        return pair_keys(keys, [*self.actor_network.in_keys, keys.action, *targets])

    @property
    def out_keys(self) -> list[str]:
        """Keys of what a call with pairs returns."""
        return ["loss", *METRICS, *(["value_loss"] if self.value_coef else [])]

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
        keys = self.tensor_keys
        trajectory = tensordict.get(keys.trajectory, None)
        if trajectory is None:
            pair, label = read_pairs(tensordict, keys)
            policy = PolicyPass(self.actor_network, pair, keys.action)
            loss, metrics = self._compare(policy, label)
        else:
            policy = PolicyPass(self.actor_network, [read_segments(trajectory, keys.mask, "trajectory")], keys.action)
            advantage = self._advantage(policy)
            score, group = get_entry(tensordict, keys.score).reshape(-1), tensordict.get(keys.group, None)
            loss = cpl_ranked_loss(advantage, score, group, bias=self.bias)
            metrics = _rank_metrics(advantage.detach(), score, group)
        nll = policy.nll()
        loss, more = policy.add_terms(loss + self.bc_coef * nll, self)
        return TensorDict({"loss": loss, **metrics, **more, "nll_loss": nll.detach()})

    def _compare(self, policy: PolicyPass, label: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean loss of pairs, and metrics."""
        advantage = self._advantage(policy).view(2, -1)  # of chosen and of rejected
        second_preferred = torch.zeros_like(advantage[0]) if label is None else 1 - label
        loss = cpl_advantage_loss(advantage[0], advantage[1], second_preferred, bias=self.bias).mean()
        log_probs = policy.log_probs.sum(dim=-1).view(2, -1)  # 0 on padding
        return loss, preference_metrics(advantage, log_probs, label)

    def _advantage(self, policy: PolicyPass) -> Tensor:
        return cpl_advantage(
            policy.log_probs,
            policy.steps.valid,
            alpha=self.alpha,
            discount=self.discount,
            length_normalize=self.length_normalize,
        )

    def _forward_value_estimator_keys(self, **kwargs: Any) -> None:
        """Do nothing: returns are in the pairs."""


class BehaviorCloningLoss(LossModule):
    """Behaviour cloning, ``-log pi(a, s)`` by the step: pretraining from the data that a preference loss takes.

    Reads pairs as `CPLLoss` does; or, where there is no ``chosen``, steps ``[B]`` or padded segments ``[P, T]`` with
    the policy's observations, ``action`` and, where it is present, ``mask``. Returns ``loss``, ``nll_loss`` and
    ``entropy``.

    Args:
        actor_network: see `CPLLoss`.
        side: whose actions of a pair are cloned: ``"chosen"`` or ``"all"``.
        entropy_coef: weight of the policy's entropy.

    Raises:
        TypeError: the network is none of those.
        ValueError: ``side`` is unknown.
    """

    _AcceptedKeys = PairKeys
    tensor_keys: PairKeys
    default_keys = PairKeys
    actor_network: Any  # a module that `tesserl_policy.check_actor` accepts
    out_keys = ["loss", "nll_loss", "entropy"]  # noqa: RUF012  # torchrl's name, an instance may overwrite it
    critic_network = None
    value_coef = 0.0

    def __init__(
        self, actor_network: nn.Module, *, side: Literal["chosen", "all"] = "chosen", entropy_coef: float = 0.0
    ) -> None:
        super().__init__()
        check_actor(actor_network)
        if side not in ("chosen", "all"):
            raise ValueError(f"side must be chosen or all, got {side!r}")
        self.actor_network = actor_network
        self.side = side
        self.entropy_coef = entropy_coef
        self.set_keys(action=action_key(actor_network, "action"))

    @property
    def functional(self) -> bool:
        """False: the network is registered as it is."""
        return False

    @property
    def in_keys(self) -> list[NestedKey]:
        """Keys that a call with steps reads always; the mask, read where present, is not among them."""
        return [*self.actor_network.in_keys, self.tensor_keys.action]

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
        keys = self.tensor_keys
        if tensordict.get(keys.chosen, None) is not None:
            segments = list(read_pairs(tensordict, keys)[0])[: 1 if self.side == "chosen" else 2]
        else:
            rows = tensordict if len(tensordict.batch_size) == 2 else tensordict.reshape(1, -1)
            segments = [read_segments(rows, keys.mask)]
        policy = PolicyPass(self.actor_network, segments, keys.action)
        nll = policy.nll()
        loss, metrics = policy.add_terms(nll, self)
        return TensorDict({"loss": loss, "nll_loss": nll.detach(), **metrics})

    def _forward_value_estimator_keys(self, **kwargs: Any) -> None:
        """Do nothing: there is no value."""


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
