"""The group-relative policy loss as a torchrl LossModule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from tensordict import NestedKey, TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential, dispatch
from torch import Tensor, nn
from torch.distributions import Distribution

from tesserl_grpo.batch import Reader, Steps
from tesserl_grpo.distributions import exact_kl
from tesserl_grpo.functional import group_policy_loss, importance_log_ratio
from tesserl_grpo.kl import kl_estimate
from tesserl_grpo.metrics import policy_metrics
from tesserl_grpo.options import (
    ImportanceLevel,
    LossKLKind,
    PolicyLossKind,
    Reduction,
    check_kl_options,
    check_loss_options,
    check_reduction,
)
from tesserl_grpo.reduction import reduce_steps
from tesserl_policy import (
    DirectLossModule,
    ReferencePolicy,
    action_entropy,
    action_log_probs,
    check_actor,
    policy_distribution,
)
from tesserl_policy.actors import is_direct
from tesserl_policy.loss_module import is_used


class GRPOLoss(DirectLossModule):
    """Group-relative policy loss for control (Shao et al. 2024, arXiv:2402.03300), around any policy.

    A call returns three losses, all with the same reduction; train on their sum:

    - ``loss_objective``, the policy loss;
    - ``loss_entropy``, ``-entropy_coef`` times the entropy, unless the coefficient is 0;
    - ``loss_kl``, ``kl_coef`` times the divergence from the reference, unless the coefficient is 0.

    It also returns metrics: means over valid steps, without gradient, see `policy_metrics`.

    The batch ``*B`` is ``[P, T]``, padded trajectories, or ``[S]``, steps without padding. It holds the policy's in
    keys, ``action``, ``action_log_prob`` ``[*B]`` and ``advantage`` ``[*B, 1]``. These are read if present:

    - ``mask`` ``[*B]``, and the masks that torchrl writes (``loss_mask_key``), true on valid steps;
    - ``step_weight`` ``[*B]``, the weight of each step (`step_weights`): the reduction is then the weighted sum, which
      is the same for padded and for flat minibatches of one update;
    - ``reference_log_prob`` ``[*B]``; the reference is then not run.

    A padded step changes no loss, no metric and no gradient, whatever its values. ``set_keys`` renames keys. A
    reference is in the state dict and not among ``parameters()``. ``kl_coef``, ``entropy_coef``, ``clip_epsilon`` and
    ``clip_epsilon_high`` are buffers: assign numbers to schedule them (``loss.kl_coef = 0.01``).

    Args:
        actor_network: a torchrl ``ProbabilisticActor`` or any module with ``in_keys`` and ``get_dist(tensordict)``; or
            a module with ``in_keys``, ``policy_parameters(*inputs)`` and ``distribution(*parameters)``, which is called
            directly. Log-probabilities and entropies of the parts of an action are summed.
        kind: see `surrogate_loss`.
        clip_epsilon: see `surrogate_loss`.
        clip_epsilon_high: see `surrogate_loss`.
        delta: see `surrogate_loss`.
        temperatures: see `surrogate_loss`.
        importance_level: see `importance_log_ratio`; others than ``"step"`` need ``[P, T]``.
        off_policy_threshold: see `near_policy_mask`; needs ``[P, T]``.
        top_entropy_fraction: see `group_policy_loss`.
        reduction: see `step_weights`. A flat batch without ``step_weight`` has ``"dapo"`` or ``"none"`` only;
            ``"none"`` keeps ``[*B]``, unweighted.
        max_length: see `step_weights`.
        kl_coef: weight of the divergence from the reference, at least 0; 0 runs no reference.
        kl_kind: ``"k2"`` or ``"k3"`` of `kl_estimate`, or ``"exact"`` for categorical and Gaussian policies, which
            needs ``reference``. ``"k1"`` is refused: the expectation of its gradient is zero.
        kl_importance_weighted: multiply the estimate by the ratio to the policy that acted, at ``importance_level``
            (DeepSeek-V3.2, arXiv:2512.02556, equation 7). Without it, the estimate assumes actions of the present
            policy.
        entropy_coef: weight of the entropy, in reward units per nat.
        reference: reference policy of the divergence; None if batches hold ``reference_log_prob``, or ``kl_coef`` is 0.
        log_metrics: compute metrics. They take a tenth of the time of a small update, so a loop may turn them on for
            its last minibatch only.

    Raises:
        TypeError: ``actor_network`` is none of these.
        ValueError: an option is out of its range.
    """

    @dataclass
    class _AcceptedKeys:
        action: NestedKey = "action"
        sample_log_prob: NestedKey = "action_log_prob"
        advantage: NestedKey = "advantage"
        mask: NestedKey = "mask"
        step_weight: NestedKey = "step_weight"
        reference_log_prob: NestedKey = "reference_log_prob"

    tensor_keys: _AcceptedKeys
    default_keys = _AcceptedKeys

    _coefficients = ("clip_epsilon", "clip_epsilon_high", "entropy_coef", "kl_coef")

    actor_network: nn.Module
    clip_epsilon: Any
    clip_epsilon_high: Any
    entropy_coef: Any
    kl_coef: Any

    def __init__(
        self,
        actor_network: nn.Module,
        *,
        kind: PolicyLossKind = "clip",
        clip_epsilon: float = 0.2,
        clip_epsilon_high: float | None = None,
        delta: float | None = None,
        temperatures: tuple[float, float] = (1.0, 1.05),
        importance_level: ImportanceLevel = "step",
        off_policy_threshold: float | None = None,
        top_entropy_fraction: float = 1.0,
        reduction: Reduction = "grpo",
        max_length: int | None = None,
        kl_coef: float = 0.0,
        kl_kind: LossKLKind = "k3",
        kl_importance_weighted: bool = False,
        entropy_coef: float = 0.0,
        reference: ReferencePolicy | None = None,
        log_metrics: bool = True,
    ) -> None:
        super().__init__()
        check_actor(actor_network)
        self.actor_network, self.reference, self.log_metrics = actor_network, reference, log_metrics
        self._input_keys: list[NestedKey] = list(cast("Any", actor_network).in_keys)
        self._is_direct = is_direct(actor_network) and (reference is None or is_direct(reference.network))
        check_loss_options(
            kind, clip_epsilon, clip_epsilon_high, delta, importance_level, top_entropy_fraction, temperatures,
            off_policy_threshold,
        )  # fmt: skip
        check_reduction(reduction, max_length)
        check_kl_options(
            kl_coef, kl_kind, has_reference=reference is not None, importance_weighted=kl_importance_weighted
        )
        self.kind: PolicyLossKind = kind
        self.clip_epsilon = clip_epsilon
        self.clip_epsilon_high = clip_epsilon_high
        self.delta = delta
        self.temperatures = temperatures
        self.importance_level: ImportanceLevel = importance_level
        self.off_policy_threshold = off_policy_threshold
        self.top_entropy_fraction = top_entropy_fraction
        self.reduction: Reduction = reduction
        self.max_length = max_length
        self.kl_coef = kl_coef
        self.kl_kind: LossKLKind = kl_kind
        self.kl_importance_weighted = kl_importance_weighted
        self.entropy_coef = entropy_coef
        self.set_keys()
        if isinstance(actor_network, ProbabilisticTensorDictSequential):  # it declares its output keys
            actions, log_probs = actor_network.dist_sample_keys, actor_network.log_prob_keys
            if len(actions) == len(log_probs) == 1:
                self.set_keys(action=actions[0], sample_log_prob=log_probs[0])

    def _required_keys(self) -> list[NestedKey]:
        """Return the keys that every call reads, without those that are read only if present."""
        keys = self.tensor_keys
        return [*self._input_keys, keys.action, keys.sample_log_prob, keys.advantage]

    @property
    def _all_out_keys(self) -> list[str]:
        coefficients = self._read_coefficients()
        has_entropy, has_kl = is_used(coefficients["entropy_coef"]), is_used(coefficients["kl_coef"])
        losses = ["loss_objective", *["loss_entropy"] * has_entropy, *["loss_kl"] * has_kl]
        if not self.log_metrics:
            return losses
        clips = {
            "clip": ["clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean"],
            "cispo": ["cispo_clip_ratio"],
            "reinforce": [],
            "sapo": [],
        }
        return [*losses, "entropy", "kl_approx", *["kl"] * has_kl, *clips[self.kind]]

    @property
    def needs_trajectories(self) -> bool:
        """Return whether a batch must be ``[P, T]``, and may not be flat."""
        return self.importance_level != "step" or self.off_policy_threshold is not None

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Compute the loss of a batch.

        Args:
            tensordict: the batch, with the keys that the class describes.

        Returns:
            TensorDict of scalars; losses are ``[*B]`` with reduction ``"none"``.

        Raises:
            KeyError: a key is missing.
            ValueError: an entry has another shape than the class describes, or there is no reference.
        """
        return self._output(self.results(tensordict))

    def results(self, tensordict: TensorDictBase) -> dict[Any, Tensor]:
        """Return all entries of a call in a dict, see `DirectLossModule.results`."""
        coefficients = self._read_coefficients()
        mask_keys = [self.tensor_keys.mask, *self._loss_mask_keys()]
        steps = Reader(tensordict, self.tensor_keys).steps(self._input_keys, mask_keys)
        policy = self._distribution(self.actor_network, steps.inputs, steps.old_log_probs.shape)
        log_probs = action_log_probs(policy, steps.action, steps.old_log_probs.shape)
        has_entropy = is_used(coefficients["entropy_coef"])
        entropy = self._entropy(policy, log_probs.dim(), has_gradient=has_entropy)
        results = {"loss_objective": self._objective(log_probs, entropy, steps, coefficients)}
        divergence = None
        if entropy is not None and has_entropy:
            results["loss_entropy"] = -coefficients["entropy_coef"] * self._reduce(entropy, steps)
        if is_used(coefficients["kl_coef"]):
            divergence = self._divergence(policy, log_probs, steps)
            results["loss_kl"] = coefficients["kl_coef"] * self._reduce(divergence, steps)
        if entropy is not None and self.log_metrics:
            results |= self._metrics(log_probs, entropy, divergence, steps, coefficients)
        return results

    def _metrics(
        self,
        log_probs: Tensor,
        entropy: Tensor,
        divergence: Tensor | None,
        steps: Steps,
        coefficients: dict[str, Any],
    ) -> dict[str, Tensor]:
        level = self.importance_level
        return policy_metrics(
            importance_log_ratio(log_probs.detach(), steps.old_log_probs, steps.mask, level=level),
            steps.advantages,
            entropy.detach(),
            steps.mask,
            divergence=None if divergence is None else divergence.detach(),
            kind=self.kind,
            clip_epsilon=coefficients["clip_epsilon"],
            clip_epsilon_high=coefficients["clip_epsilon_high"],
        )

    @torch.no_grad()
    def reference_log_probs(self, tensordict: TensorDictBase) -> Tensor:
        """Compute the reference's log-probabilities once for an update, into the entry ``reference_log_prob``.

        Args:
            tensordict: the batch.

        Returns:
            Log-probabilities of the actions under the reference, ``[*B]``.

        Raises:
            KeyError: a key is missing.
            ValueError: there is no reference, or an entry has another shape than the class describes.
        """
        batch = Reader(tensordict, self.tensor_keys)
        inputs, action, _ = batch.inputs(self._input_keys, [self.tensor_keys.mask, *self._loss_mask_keys()])
        return action_log_probs(self._reference_distribution(inputs, batch.shape), action, batch.shape)

    def _entropy(self, policy: Distribution, num_dims: int, *, has_gradient: bool) -> Tensor | None:
        """Return the entropy of each step, ``[*B]``, if an option needs it."""
        if has_gradient:
            return action_entropy(policy, num_dims)
        if not self.log_metrics and self.top_entropy_fraction == 1:
            return None
        with torch.no_grad():
            return action_entropy(policy, num_dims)

    def _objective(
        self, log_probs: Tensor, entropy: Tensor | None, steps: Steps, coefficients: dict[str, Any]
    ) -> Tensor:
        """Return the policy loss."""
        return group_policy_loss(
            log_probs,
            steps.old_log_probs,
            steps.advantages,
            steps.mask,
            kind=self.kind,
            clip_epsilon=coefficients["clip_epsilon"],
            clip_epsilon_high=coefficients["clip_epsilon_high"],
            delta=self.delta,
            temperatures=self.temperatures,
            importance_level=self.importance_level,
            off_policy_threshold=self.off_policy_threshold,
            entropy=entropy,
            top_entropy_fraction=self.top_entropy_fraction,
            reduction=self.reduction,
            max_length=self.max_length,
            weights=steps.weights,
        )

    def _reduce(self, values: Tensor, steps: Steps) -> Tensor:
        reduction, max_length = self.reduction, self.max_length
        return reduce_steps(values, steps.mask, reduction=reduction, max_length=max_length, weights=steps.weights)

    def _divergence(self, policy: Distribution, log_probs: Tensor, steps: Steps) -> Tensor:
        """Return the divergence from the reference at each step, ``[*B]``."""
        batch_shape, reference_log_probs = log_probs.shape, steps.reference_log_probs
        if self.kl_kind == "exact":
            with torch.no_grad():
                reference = self._reference_distribution(steps.inputs, batch_shape)
            return exact_kl(policy, reference, len(batch_shape))
        if reference_log_probs is None:
            with torch.no_grad():
                reference = self._reference_distribution(steps.inputs, batch_shape)
                reference_log_probs = action_log_probs(reference, steps.action, batch_shape)
        estimate = kl_estimate(log_probs, reference_log_probs, kind=self.kl_kind)
        if not self.kl_importance_weighted:
            return estimate
        level = self.importance_level
        return importance_log_ratio(log_probs, steps.old_log_probs, steps.mask, level=level).exp() * estimate

    def _reference_distribution(self, inputs: list[Tensor], batch_shape: Sequence[int]) -> Distribution:
        if self.reference is None:
            raise ValueError(
                f"kl_coef={float(self.kl_coef):g} needs a reference; give reference=ReferencePolicy(actor_network), or "
                f"put {self.tensor_keys.reference_log_prob!r} into the batch (not for kl_kind exact)"
            )
        return self._distribution(self.reference.network, inputs, batch_shape)

    def _distribution(self, network: Any, inputs: list[Tensor], batch_shape: Sequence[int]) -> Distribution:
        return policy_distribution(network, dict(zip(self._input_keys, inputs, strict=True)), batch_shape)
