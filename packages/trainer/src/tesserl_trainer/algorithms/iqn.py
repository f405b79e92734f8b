"""Build implicit quantile networks from ``iqn:`` and ``replay:``."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, TypedDict

from tensordict import TensorDictBase
from torch import nn
from torch.optim import Optimizer

from tesserl_collectors.free_collector import FreeCollector, WorkerWindows
from tesserl_configs.iqn import IQNConfig, SoftUpdate
from tesserl_configs.replay import PrioritizedReplay
from tesserl_iqn import (
    IQNLoss,
    PeriodicReset,
    QuantileNetwork,
    QuantilePolicy,
    TargetUpdater,
    crop_pixels,
    prepare_batches,
    set_clock,
)
from tesserl_iqn.transitions import Preparation
from tesserl_nn_components import RunningNormalizer
from tesserl_replay import NStepWindow
from tesserl_trainer.algorithms.acting.iqn import build_actor, build_collector, build_network
from tesserl_trainer.algorithms.agent import Agent, agent_of, forward_of, observing_rollouts
from tesserl_trainer.algorithms.collectors import build_agent_and_collector
from tesserl_trainer.algorithms.optimizers import optimizer_of
from tesserl_trainer.algorithms.replay import build_replay
from tesserl_trainer.algorithms.run import Run
from tesserl_trainer.algorithms.schedules import scheduled
from tesserl_trainer.algorithms.task import Task
from tesserl_training.loops.off_policy import OffPolicyLoop, Pace

IQNAgent = Agent[QuantilePolicy, IQNLoss, IQNLoss]


def build_agent(
    task: Task,
    network: nn.Module,
    *,
    observes: bool = True,
    agreed: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> IQNAgent:
    """Build loss, optimiser and policy around a ``QuantileNetwork`` on the device; resets draw inside ``agreed``."""
    config, iqn = task.config, task.config.iqn
    actor = build_actor(task, network, observes=observes)
    loss = _build_loss(iqn, actor.policy.network)
    forward = forward_of(loss, precision=iqn.precision, compiled=iqn.compile, device=config.device)
    optimizer = optimizer_of(config, network, capturable=iqn.cuda_graph)

    def fresh() -> QuantileNetwork:
        with agreed():
            return build_network(task)

    return agent_of(
        config,
        iqn,
        actor,
        loss,
        loss,
        forward=prepare_batches(forward, _preparations(iqn)),
        optimizer=optimizer,
        updated=_updates(iqn, loss, fresh, optimizer),
    )


def build_loop(task: Task, run: Run) -> OffPolicyLoop:
    """Build the loop: collect, sum rewards over n steps, store, learn from batches of the replay buffer."""
    config, iqn, settings = task.config, task.config.iqn, task.config.replay
    several = run.ranks.number > 1
    pace = Pace(iqn.collect_steps, settings.warmup_steps, iqn.update_interval, iqn.batch_size, settings.ratio)
    agent, collector = build_agent_and_collector(
        task,
        run,
        functools.partial(build_agent, observes=not several, agreed=run.ranks.agreed),
        build_collector,
        observe=lambda agent: observing_batches(agent.policy.network),
        updates_of=pace.updates_of,
    )
    replay = build_replay(config, run.directory, task.layout, rank=run.ranks.rank)
    schedules = []
    if isinstance(settings, PrioritizedReplay):
        schedules.append(scheduled("beta", settings.beta, replay.set_beta))
    make_window = functools.partial(
        NStepWindow,
        iqn.num_steps,
        iqn.discount,
        cut_at_exploration=settings.cut_at_exploration,
        keep_partial_returns=iqn.fixed_horizon is not None,
    )
    return OffPolicyLoop(
        agent.learner(),
        collector,
        WorkerWindows(make_window, collector) if isinstance(collector, FreeCollector) else make_window(),
        replay,
        pace,
        run.journal(task, agent, collector.pop_episodes, schedules, workers=collector.record),
        prepare_test=_clock(iqn),
        observe=observing_rollouts(agent.policy.network, run.ranks) if several else None,
    )


class _Munchausen(TypedDict, total=False):
    munchausen_alpha: float
    munchausen_temperature: float
    munchausen_clip: float
    munchausen_log_policy: Literal["target", "online"]


def _build_loss(iqn: IQNConfig, network: QuantileNetwork) -> IQNLoss:
    munchausen: _Munchausen = {}
    if iqn.munchausen is not None:
        munchausen = {
            "munchausen_alpha": iqn.munchausen.alpha,
            "munchausen_temperature": iqn.munchausen.temperature,
            "munchausen_clip": iqn.munchausen.clip,
            "munchausen_log_policy": iqn.munchausen.log_policy,
        }
    return IQNLoss(
        network,
        discount=iqn.discount,
        num_taus=iqn.num_taus,
        num_target_taus=iqn.num_target_taus,
        num_policy_taus=iqn.num_policy_taus,
        double=iqn.double,
        kappa=iqn.kappa,
        tau_sampling=iqn.tau_sampling,
        self_loss_clamp_ratio=iqn.self_loss_clamp_ratio,
        **munchausen,
    )


def observing_batches(network: QuantileNetwork) -> Callable[[TensorDictBase], None]:
    """Return the function that updates running statistics with a worker's batch ``[N, T]``, step by step."""
    normalizers = [module for module in network.modules() if isinstance(module, RunningNormalizer)]

    def observe(batch: TensorDictBase) -> None:
        for normalizer in normalizers:
            for observation in batch["observation"].unbind(1):
                normalizer.update(observation.to(normalizer.mean.device))

    return observe


def _updates(
    iqn: IQNConfig, loss: IQNLoss, fresh: Callable[[], QuantileNetwork], optimizer: Optimizer
) -> Callable[[int], None]:
    """Return the function to call after each gradient step, with the number of updates so far."""
    target = iqn.target_update
    rate = target.rate if isinstance(target, SoftUpdate) else None
    updater = TargetUpdater(loss, interval=target.interval, rate=rate)
    if iqn.reset is None:
        return updater.update
    resets = PeriodicReset(
        loss,
        fresh,
        interval=iqn.reset.interval,
        factor=iqn.reset.factor,
        last_layer_factor=iqn.reset.last_layer_factor,
        optimizer=optimizer,
    )

    def update_and_reset(updates: int) -> None:
        updater.update(updates)
        resets.update(updates)

    return update_and_reset


def _clock(iqn: IQNConfig) -> Preparation | None:
    """Return the function that sets the clock of a batch, see `set_clock`; None without a fixed horizon."""
    horizon = iqn.fixed_horizon
    return None if horizon is None else lambda batch: set_clock(batch, horizon.steps, horizon.start_fraction)


def _preparations(iqn: IQNConfig) -> list[Preparation]:
    """Return the functions that change a batch before the loss reads it."""
    clock, padding = _clock(iqn), iqn.random_crop
    steps = [] if clock is None else [clock]
    if padding is not None:
        steps.append(lambda batch: crop_pixels(batch, padding))
    return steps
