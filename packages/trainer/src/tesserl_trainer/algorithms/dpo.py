"""Build direct preference optimisation and its family from ``dpo:`` and ``pairs:``."""

from torch import nn

from tesserl_actor_critic import ActorCritic
from tesserl_configs import value_at
from tesserl_configs.preference_losses import (
    AlphaDivergence,
    DifferenceOptions,
    DiscoPOPLoss,
    PairedLoss,
    SimPOLoss,
    SmoothedLoss,
)
from tesserl_configs.preference_losses import (
    KTOLoss as KTOOptions,
)
from tesserl_configs.preferences import DPOConfig
from tesserl_configs.reference import movement_of
from tesserl_policy import ReferencePolicy
from tesserl_preference_opt import KTOLoss, PreferenceLoss
from tesserl_trainer.algorithms.preferences import (
    PairAgent,
    build_pair_agent,
    build_pair_loop,
    placed,
)
from tesserl_trainer.algorithms.run import Run
from tesserl_trainer.algorithms.schedules import at_start, attributes
from tesserl_trainer.algorithms.task import Task
from tesserl_training.loops.preferences import PreferenceLoop


def build_agent(task: Task, network: nn.Module) -> PairAgent:
    """Build the loss, the optimiser and the policy around an ``ActorCritic``, which is moved to the device."""
    dpo = task.config.dpo
    actor_critic = placed(task, dpo, network)
    frozen = None
    loss: KTOLoss | PreferenceLoss
    if isinstance(dpo.loss, KTOOptions):  # KTO holds even a frozen reference, to score mismatched actions
        loss = _kto(dpo, dpo.loss, actor_critic)
    else:
        loss = _paired(dpo, dpo.loss, actor_critic)
        if loss.needs_reference and loss.reference is None:
            frozen = ReferencePolicy(actor_critic)
    schedules = attributes(loss, beta=dpo.beta, entropy_coef=dpo.entropy_coef, nll_coef=dpo.nll_coef)

    def follow(updates: int) -> None:  # noqa: ARG001 - the reference counts updates itself
        loss.update_reference()

    return build_pair_agent(task, dpo, actor_critic, loss, schedules, frozen=frozen, follow=follow)


def build_loop(task: Task, run: Run) -> PreferenceLoop:
    """Build the loop over stored pairs, new pairs or both."""
    return build_pair_loop(task, run, task.config.dpo, build_agent)


def _kto(dpo: DPOConfig, options: KTOOptions, network: ActorCritic) -> KTOLoss:
    interval, rate = movement_of(dpo.reference)
    return KTOLoss(
        network,
        loss_type=options.kind,
        beta=value_at(dpo.beta, 0),
        desirable_weight=options.desirable_weight,
        undesirable_weight=options.undesirable_weight,
        discount=dpo.discount,
        length_normalize=bool(dpo.length_normalize),
        reference_sync_interval=interval,
        reference_update_rate=rate,
        entropy_coef=value_at(dpo.entropy_coef, 0),
    )


def _paired(dpo: DPOConfig, options: PairedLoss, network: ActorCritic) -> PreferenceLoss:
    interval, rate = movement_of(dpo.reference)
    divergence = options.f_divergence if isinstance(options, DifferenceOptions) else None
    return PreferenceLoss(
        network,
        loss_type=options.kind,
        beta=value_at(dpo.beta, 0),
        label_smoothing=options.label_smoothing if isinstance(options, SmoothedLoss) else 0.0,
        discount=dpo.discount,
        length_normalize=dpo.length_normalize,
        ld_alpha=dpo.ld_alpha,
        use_weighting=dpo.use_weighting,
        f_divergence="reverse_kl" if divergence is None else divergence.kind,
        f_alpha=divergence.alpha if isinstance(divergence, AlphaDivergence) else 0.5,
        simpo_gamma=options.gamma if isinstance(options, SimPOLoss) else 0.5,
        discopop_tau=options.tau if isinstance(options, DiscoPOPLoss) else 0.05,
        reference_free=dpo.reference.kind == "none",
        reference_network=None if interval is None else "copy",
        reference_sync_interval=interval,
        reference_update_rate=rate,
        nll_coef=at_start(dpo.nll_coef),
        entropy_coef=value_at(dpo.entropy_coef, 0),
        value_coef=0.0 if dpo.value is None else dpo.value.coef,
    )
