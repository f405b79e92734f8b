"""Rules about ``grpo:``, one function each; they apply if the algorithm is grpo."""

from __future__ import annotations

from collections.abc import Iterator

from tesserl_configs.environment_rules import check_starts, rewards_have_one_unit
from tesserl_configs.errors import Problem
from tesserl_configs.run_keys import Rule, RunKeys
from tesserl_configs.schedules import values_of
from tesserl_configs.size_rules import groups_fit_into_memory


def starts_can_be_set(config: RunKeys) -> Iterator[Problem]:
    """Check that the trajectories of a group can share their start."""
    return check_starts(config, "grpo.starts", config.grpo.starts.kind)


def visited_states_are_known(config: RunKeys) -> Iterator[Problem]:
    """Refuse visited states with worker processes, each of which would know only its own trajectories."""
    kind = config.collectors.kind
    if config.grpo.starts.kind == "visited" and kind != "local":
        yield Problem(
            "grpo.starts.kind",
            f"visited branches from all trajectories, and worker processes know only their own: expected collectors "
            f"of kind local, got {kind}; choose it, or starts of kind seed",
        )


def minibatches_hold_trajectories(config: RunKeys) -> Iterator[Problem]:
    """Check that there are enough trajectories for minibatches of whole trajectories."""
    most = config.grpo.num_groups * config.grpo.group_size
    if config.grpo.num_minibatches > most:
        yield Problem(
            "grpo.num_minibatches",
            f"expected at most grpo.num_groups * grpo.group_size = {most} trajectories, "
            f"got {config.grpo.num_minibatches}",
        )


def plain_gradients_are_taken_once(config: RunKeys) -> Iterator[Problem]:
    """Refuse several epochs with reinforce: after the first, the data are off-policy and no ratio corrects that."""
    if config.grpo.loss.kind == "reinforce" and config.grpo.num_epochs > 1:
        yield Problem(
            "grpo.num_epochs",
            f"reinforce is right for one pass over the data, got {config.grpo.num_epochs}; "
            "set it to 1 or choose grpo.loss of kind clip",
        )


def caps_are_above_the_clip(config: RunKeys) -> Iterator[Problem]:
    """Check that the largest ratio is above the clip."""
    loss = config.grpo.loss
    if loss.kind != "clip" or loss.delta is None:
        return
    key = "clip_epsilon" if loss.clip_epsilon_high is None else "clip_epsilon_high"
    upper = 1 + max(values_of(getattr(loss, key)))
    if loss.delta <= upper:
        yield Problem(
            "grpo.loss.delta", f"expected more than 1 + grpo.loss.{key} = {upper:g}, got {loss.delta:g}; it is a ratio"
        )


def lengths_have_a_bound(config: RunKeys) -> Iterator[Problem]:
    """Require ``max_length`` for Dr. GRPO, which divides by it."""
    if config.grpo.reduction == "dr_grpo" and config.grpo.max_length is None:
        yield Problem("grpo.reduction", "dr_grpo divides by the longest length; set grpo.max_length")


def penalties_have_a_gradient(config: RunKeys) -> Iterator[Problem]:
    """Refuse the estimator k1, whose expected gradient is zero."""
    if config.grpo.kl is not None and config.grpo.kl.estimator == "k1":
        yield Problem(
            "grpo.kl.estimator", "the expected gradient of k1 is 0, so it would only add noise; choose k2, k3 or exact"
        )


def exact_divergences_have_no_weight(config: RunKeys) -> Iterator[Problem]:
    """Refuse importance weights for the exact divergence, which is not estimated from actions."""
    kl = config.grpo.kl
    if kl is not None and kl.importance_weighted and kl.estimator == "exact":
        yield Problem("grpo.kl.importance_weighted", "corrects an estimate, got estimator exact; set it to false")


RULES: tuple[Rule, ...] = (
    starts_can_be_set,
    visited_states_are_known,
    rewards_have_one_unit,
    minibatches_hold_trajectories,
    plain_gradients_are_taken_once,
    caps_are_above_the_clip,
    lengths_have_a_bound,
    penalties_have_a_gradient,
    exact_divergences_have_no_weight,
    groups_fit_into_memory,
)
