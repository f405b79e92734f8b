"""The preference loss as a torchrl LossModule."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from tensordict import NestedKey, TensorDictBase
from tensordict.nn import TensorDictModule, dispatch
from torch import Tensor, nn

from tesserl_policy import DirectLossModule, ReferencePolicy, check_actor
from tesserl_policy.loss_module import Reduction, check_reduction, is_used
from tesserl_preference_opt.functional import bc_loss, preference_loss
from tesserl_preference_opt.functional.pairwise import (
    AVERAGED_LOSS_TYPES,
    REFERENCE_FREE_LOSS_TYPES,
    SMOOTHED_LOSS_TYPES,
    FDivergence,
    LossType,
    check_preference_options,
)
from tesserl_preference_opt.functional.unpaired import UNPAIRED_LOSS_TYPES
from tesserl_preference_opt.metrics import METRICS, preference_metrics
from tesserl_preference_opt.policy import PolicyPass, action_key, check_added_terms
from tesserl_preference_opt.reference_log_probs import reference_log_probs, reference_source
from tesserl_preference_opt.steps import PairKeys, Steps, pair_keys, read_pairs


class PreferenceLoss(DirectLossModule):
    """Direct preference optimisation of a policy from pairs of segments, for torchrl's buffers and trainers.

    A call reads from the batch ``[P]``:

    - ``chosen`` and ``rejected``, padded segments ``[P, T]`` with the policy's observations, ``action`` and ``mask``;
    - their ``reference_log_prob`` ``[P, T]``, unless the loss holds a reference policy or needs none;
    - if present, ``label`` ``[P]``, the probability that ``chosen`` is better: 0.5 for a tie.

    It returns ``loss`` and metrics under TRL's names. ``set_keys`` renames entries. ``beta``, ``nll_coef``,
    ``entropy_coef`` and ``value_coef`` are buffers: assign numbers to schedule them (``loss.beta = 0.2``).

    A reference policy of the loss is in its state dict and not among the parameters. Call `update_reference` after each
    optimisation step.

    Args:
        actor_network: a torchrl ``ProbabilisticActor`` of any action space, or a module that is called without
            TensorDict: with ``in_keys``, ``policy_parameters(*inputs)`` and ``distribution(*parameters)``.
        critic_network: a TensorDictModule that writes ``state_value``, for ``value_coef``; None takes the actor's
            ``state_value(*inputs)``.
        loss_type: see `preference_loss`; or several types, whose losses are summed.
        loss_weights: weights of several types; None for 1 each.
        beta: strength of the pull towards the reference, above 0. It multiplies a quantity that grows with the length
            of segments: use 0.1 for sums over tens of steps, 1 or more for averages.
        label_smoothing: probability that a label is wrong, in [0, 0.5], for the types that read it.
        discount: weight of a step relative to the step before, in [0, 1].
        length_normalize: average log-probs over the steps of a segment. None averages for the types that are defined so
            (``ipo``, ``sigmoid_norm``, ``simpo``, ``orpo``, ``sft``). False is the paper's form of ``ipo``.
        ld_alpha: weight of the steps of the longer segment of a pair after the end of the shorter one, in [0, 1], for
            sums (LD-DPO, Liu et al. 2024, arXiv:2409.06411). Below 1 the length matters less. As in the paper it weighs
            the steps of policy and reference, so that equal policies have equal scores; TRL weighs those of the policy.
        use_weighting: weigh the loss of each pair by the probability that the policy acts so (WPO, see
            `tesserl_preference_opt.functional.pair_weights`); the weights have no gradient.
        f_divergence: see `f_divergence_score`.
        f_alpha: order of the alpha-divergence.
        simpo_gamma: SimPO's target margin.
        discopop_tau: temperature of DiscoPOP's blend.
        reference_free: use a uniform reference.
        reference_network: ``"copy"`` for a copy of the actor as it is now, or a policy, which is copied. None reads
            ``reference_log_prob`` from the pairs.
        reference_sync_interval: see `ReferencePolicy`; None for a frozen reference.
        reference_update_rate: see `ReferencePolicy`.
        nll_coef: weight of behaviour cloning on the chosen segments; None is 1 for ``orpo`` (its paper), 0 for others.
        entropy_coef: weight of the policy's entropy.
        value_coef: weight of the value loss with targets ``value_target`` ``[P, T, 1]``; 0 runs no critic.
        reduction: ``"mean"`` or ``"sum"`` of the losses of the pairs, or ``"none"`` for each of them, ``[P]``. The
            terms with coefficients are means over all steps, added to the loss of each pair.

    Raises:
        TypeError: a network is none of those above.
        ValueError: an option is out of its range, or does not fit the others.
    """

    @dataclass
    class _AcceptedKeys(PairKeys):
        reference_log_prob: NestedKey = "reference_log_prob"
        value: NestedKey = "state_value"
        value_target: NestedKey = "value_target"

    tensor_keys: _AcceptedKeys
    default_keys = _AcceptedKeys
    _coefficients = ("beta", "nll_coef", "entropy_coef", "value_coef")
    beta: Any
    nll_coef: Any
    entropy_coef: Any
    value_coef: Any
    actor_network: Any  # a module that `tesserl_policy.check_actor` accepts

    def __init__(
        self,
        actor_network: nn.Module,
        critic_network: TensorDictModule | None = None,
        *,
        loss_type: LossType | Sequence[LossType] = "sigmoid",
        loss_weights: Sequence[float] | None = None,
        beta: float = 0.1,
        label_smoothing: float = 0.0,
        discount: float = 1.0,
        length_normalize: bool | None = None,
        ld_alpha: float = 1.0,
        use_weighting: bool = False,
        f_divergence: FDivergence = "reverse_kl",
        f_alpha: float = 0.5,
        simpo_gamma: float = 0.5,
        discopop_tau: float = 0.05,
        reference_free: bool = False,
        reference_network: nn.Module | Literal["copy"] | None = None,
        reference_sync_interval: int | None = None,
        reference_update_rate: float = 1.0,
        nll_coef: float | None = None,
        entropy_coef: float = 0.0,
        value_coef: float = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_actor(actor_network)
        self.actor_network, self.critic_network = actor_network, critic_network
        self.loss_types = (loss_type,) if isinstance(loss_type, str) else tuple(loss_type)
        self.loss_weights = (1.0,) * len(self.loss_types) if loss_weights is None else tuple(loss_weights)
        self.beta = beta
        self.label_smoothing = label_smoothing
        self.discount = discount
        self.length_normalize = length_normalize
        self.ld_alpha = ld_alpha
        self.use_weighting = use_weighting
        self.f_divergence = f_divergence
        self.f_alpha = f_alpha
        self.simpo_gamma = simpo_gamma
        self.discopop_tau = discopop_tau
        self.nll_coef = float("orpo" in self.loss_types) if nll_coef is None else nll_coef
        self.entropy_coef = entropy_coef
        self.value_coef = value_coef
        self.reduction: Reduction = reduction
        self.needs_reference = not (reference_free or set(self.loss_types) <= set(REFERENCE_FREE_LOSS_TYPES))
        self._check_options()
        self.reference: ReferencePolicy | None = None
        if reference_network is not None:
            if not self.needs_reference:
                raise ValueError(f"{', '.join(self.loss_types)} reads no reference here, got one; leave it out")
            self.reference = ReferencePolicy(
                reference_source(actor_network, reference_network),
                interval=reference_sync_interval,
                rate=reference_update_rate,
            )
        elif reference_sync_interval is not None or reference_update_rate != 1:
            raise ValueError(
                f"a reference must be held to be updated, got {reference_sync_interval=} and {reference_update_rate=} "
                'without; use reference_network="copy"'
            )
        self.set_keys(action=action_key(actor_network, "action"))

    @property
    def _all_out_keys(self) -> list[str]:
        has_value = is_used(self._read_coefficients()["value_coef"])
        return ["loss", *METRICS, *(["value_loss"] if has_value else [])]

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Compute the loss of a batch of pairs.

        Args:
            tensordict: the batch ``[P]``, with the keys that the class describes.

        Returns:
            TensorDict of scalars: ``loss`` and metrics.

        Raises:
            KeyError: a key is missing.
            ValueError: an entry has another shape than the class describes, or there are ties with ``aot``.
        """
        return self._output(self.results(tensordict))

    def results(self, tensordict: TensorDictBase) -> dict[Any, Tensor]:
        """Return all entries of a call in a dict, see `DirectLossModule.results`."""
        coefficients = self._read_coefficients()
        beta, nll_coef = coefficients["beta"], coefficients["nll_coef"]
        segments, label = read_pairs(tensordict, self.tensor_keys)
        policy = PolicyPass(self.actor_network, segments, self.tensor_keys.action)
        steps = policy.steps
        log_probs = self._sums(policy.flat_log_probs, steps)  # of chosen and of rejected
        lengths = steps.lengths(discount=self.discount).view(2, -1) if self._reads_lengths() else None
        reference = self._reference_log_probs(policy)
        loss = self._pair_loss(log_probs, reference, lengths, label, beta)
        loss = loss * policy.pair_weights() if self.use_weighting else loss
        metrics = preference_metrics(self._rewards(log_probs, reference, lengths, beta), log_probs, label)
        total = loss.mean() if self.reduction == "mean" else loss
        total, more = policy.add_terms(total, self, coefficients)
        with nullcontext() if is_used(nll_coef) else torch.no_grad():
            mask = None if steps.valid is None else steps.mask[: len(loss)]
            nll = bc_loss(policy.log_probs[: len(loss)], mask)
        total = total + nll_coef * nll if is_used(nll_coef) else total
        total = total.sum() if self.reduction == "sum" else total
        return {"loss": total, **metrics, **more, "nll_loss": nll.detach()}

    def update_reference(self) -> None:
        """Count an update of the policy; the reference, if there is one, follows when its interval is over."""
        if self.reference is not None:
            self.reference.step(self.actor_network)

    def _reads_lengths(self) -> bool:
        return bool(self.length_normalize) or any(each in AVERAGED_LOSS_TYPES for each in self.loss_types)

    def _reference_log_probs(self, policy: PolicyPass) -> Tensor | None:
        """Return the reference's summed log-probs, ``[2, P]``; None if the loss needs none."""
        if not self.needs_reference:
            return None
        steps = policy.steps
        if self.reference is not None:
            log_probs = reference_log_probs(self.reference, steps, policy.action)[0]
        else:
            log_probs = steps.get(self.tensor_keys.reference_log_prob).detach().reshape(steps.batch_size)
        return self._sums(log_probs, steps)

    def _sums(self, log_probs: Tensor, steps: Steps) -> Tensor:
        """Return the sums of chosen and of rejected segments, ``[2, P]``."""
        return steps.sums(log_probs, discount=self.discount, tail_weight=self.ld_alpha).view(2, -1)

    def _pair_loss(
        self, log_probs: Tensor, reference: Tensor | None, lengths: Tensor | None, label: Tensor | None, beta: Any
    ) -> Tensor:
        """Return the loss of each pair, ``[P]``, from ``[2, P]``; a tie is half a pair in each direction."""
        loss = self._directed_loss(log_probs, reference, lengths, beta)
        if label is None:
            return loss
        if {"aot", "aot_unpaired"} & set(self.loss_types):
            raise ValueError("aot sorts its batch and has no place for ties, got labels; drop ties and the key label")
        reference = None if reference is None else reference.flip(0)
        lengths = None if lengths is None else lengths.flip(0)
        return label * loss + (1 - label) * self._directed_loss(log_probs.flip(0), reference, lengths, beta)

    def _directed_loss(self, log_probs: Tensor, reference: Tensor | None, lengths: Tensor | None, beta: Any) -> Tensor:
        """Return the weighted sum of all types, ``[P]``, as if the first of each pair were preferred."""
        losses = []
        for loss_type, weight in zip(self.loss_types, self.loss_weights, strict=True):
            sums = log_probs if reference is None else torch.cat([log_probs, reference])
            chosen_lengths, rejected_lengths = (None, None) if lengths is None else lengths.unbind()
            if self.length_normalize is False:
                chosen_lengths = rejected_lengths = None
            elif lengths is not None and self.length_normalize and loss_type not in AVERAGED_LOSS_TYPES:
                sums = sums / lengths.clamp_min(1).repeat(len(sums) // 2, 1)
            loss = preference_loss(
                *sums.unbind(),
                loss_type=loss_type,
                beta=beta,
                label_smoothing=self.label_smoothing if loss_type in SMOOTHED_LOSS_TYPES else 0.0,
                chosen_lengths=chosen_lengths,
                rejected_lengths=rejected_lengths,
                f_divergence=self.f_divergence,
                f_alpha=self.f_alpha,
                simpo_gamma=self.simpo_gamma,
                discopop_tau=self.discopop_tau,
            )
            losses.append(loss if weight == 1 else weight * loss)
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum(dim=0)

    def _rewards(self, log_probs: Tensor, reference: Tensor | None, lengths: Tensor | None, beta: Any) -> Tensor:
        """Return implicit rewards, beta times the log-ratio, averaged where the loss averages, ``[2, P]``."""
        by_type = all(each in AVERAGED_LOSS_TYPES for each in self.loss_types)
        ratio = log_probs.detach() if reference is None else log_probs.detach() - reference
        averaged = by_type if self.length_normalize is None else self.length_normalize
        return beta * (ratio / lengths.clamp_min(1) if averaged and lengths is not None else ratio)

    def _check_options(self) -> None:
        if not self.loss_types or len(self.loss_weights) != len(self.loss_types):
            raise ValueError(
                f"loss_weights must be as many as loss types, got {self.loss_weights} for {self.loss_types}"
            )
        for loss_type in self.loss_types:
            if loss_type in UNPAIRED_LOSS_TYPES:
                raise ValueError(f"loss_type {loss_type} takes single segments; use KTOLoss")
            smoothing = self.label_smoothing if loss_type in SMOOTHED_LOSS_TYPES else 0.0
            check_preference_options(loss_type, float(self.beta), smoothing, self.f_divergence)
            if self.length_normalize is False and loss_type in AVERAGED_LOSS_TYPES and loss_type != "ipo":
                raise ValueError(f"{loss_type} is made of averages, got length_normalize=False; leave it out")
        if self.label_smoothing and not set(self.loss_types) & set(SMOOTHED_LOSS_TYPES):
            raise ValueError(
                f"label_smoothing is read by {', '.join(SMOOTHED_LOSS_TYPES)}, got it for {', '.join(self.loss_types)}"
            )
        if self.use_weighting and {"aot", "aot_unpaired"} & set(self.loss_types):
            raise ValueError("aot sorts its batch, so its losses are of no pair, got use_weighting; leave it out")
        if not 0 <= self.ld_alpha <= 1:
            raise ValueError(f"ld_alpha must be in [0, 1], got {self.ld_alpha}; 1 weighs all steps alike")
        if self.ld_alpha != 1 and self._reads_lengths():
            raise ValueError(f"ld_alpha must be 1 where log-probs are averages, got {self.ld_alpha}; it is for sums")
        if not self.discopop_tau > 0:
            raise ValueError(f"discopop_tau must be above 0, got {self.discopop_tau}")
        check_added_terms(self)
        check_reduction(self.reduction)

    def _required_keys(self) -> list[NestedKey]:
        """Return the keys that a call always reads, without masks and labels, which are optional."""
        keys = self.tensor_keys
        entries = [*self.actor_network.in_keys, keys.action]
        if self.needs_reference and self.reference is None:
            entries.append(keys.reference_log_prob)
        if is_used(self._read_coefficients()["value_coef"]):
            entries.append(keys.value_target)
        return pair_keys(keys, entries)
