"""Build contrastive preference learning from ``cpl:`` and ``pairs:``."""

from torch import nn

from tesserl_configs import value_at
from tesserl_preference_opt import CPLLoss
from tesserl_trainer.algorithms.preferences import (
    PairAgent,
    build_pair_agent,
    build_pair_loop,
    placed,
)
from tesserl_trainer.algorithms.run import Run
from tesserl_trainer.algorithms.schedules import attributes
from tesserl_trainer.algorithms.task import Task
from tesserl_training.loops.preferences import PreferenceLoop


def build_agent(task: Task, network: nn.Module) -> PairAgent:
    """Build the loss, the optimiser and the policy around an ``ActorCritic``, which is moved to the device."""
    cpl = task.config.cpl
    actor_critic = placed(task, cpl, network)
    loss = CPLLoss(
        actor_critic,
        alpha=cpl.alpha,
        bias=cpl.bias,
        discount=cpl.discount,
        length_normalize=cpl.length_normalize,
        bc_coef=value_at(cpl.bc_coef, 0),
        entropy_coef=value_at(cpl.entropy_coef, 0),
        value_coef=0.0 if cpl.value is None else cpl.value.coef,
    )
    schedules = attributes(loss, entropy_coef=cpl.entropy_coef, bc_coef=cpl.bc_coef)
    return build_pair_agent(task, cpl, actor_critic, loss, schedules)


def build_loop(task: Task, run: Run) -> PreferenceLoop:
    """Build the loop over stored pairs, new pairs or both."""
    return build_pair_loop(task, run, task.config.cpl, build_agent)
