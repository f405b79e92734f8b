"""From a configuration to a loop that is ready to run."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

from tesserl_configs import RunConfig, value_at
from tesserl_grpo import GRPOLoss
from tesserl_replay import NStepWindow
from tesserl_trainer.commands.evaluate import play
from tesserl_trainer.loops import groups, off_policy, on_policy, preferences
from tesserl_trainer.run.checkpoint import Checkpoints
from tesserl_trainer.run.collect import Collector, Episode
from tesserl_trainer.run.cuda_graph import GraphedLearner
from tesserl_trainer.run.evaluate import Evaluation
from tesserl_trainer.run.groups import GroupCollector
from tesserl_trainer.run.journal import Intervals, Journal, Loop
from tesserl_trainer.run.learner import Learner
from tesserl_trainer.run.logging import MetricsLog
from tesserl_trainer.run.observations import ObservationLayout
from tesserl_trainer.run.progress import ProgressDisplay
from tesserl_trainer.run.reference import Policies
from tesserl_trainer.run.rewards import RewardScaler
from tesserl_trainer.run.rollout import Advantages
from tesserl_trainer.run.schedule import Scheduled
from tesserl_trainer.run.workers import close
from tesserl_trainer.wiring.algorithms import build_algorithm
from tesserl_trainer.wiring.environments import make_environments, worker_seeds
from tesserl_trainer.wiring.grpo import build_starts
from tesserl_trainer.wiring.initial_weights import load_initial_weights
from tesserl_trainer.wiring.learning import Algorithm, observing_rollouts
from tesserl_trainer.wiring.networks import build_network, make_layout
from tesserl_trainer.wiring.preferences import (
    build_batches,
    build_cloning,
    build_fresh_pairs,
    build_stored_pairs,
    preference_settings,
)
from tesserl_trainer.wiring.replay import build_replay

PREFERENCES = ("dpo", "cpl")
"""Algorithms that learn from pairs."""


def assemble(config: RunConfig, run_dir: Path, progress: ProgressDisplay, stack: ExitStack) -> Loop:
    """Builds everything that a run needs.

    Args:
        config: what to train.
        run_dir: directory of the run.
        progress: where the loop shows how far it is.
        stack: closes environments and logs when the run is over.

    Returns:
        The loop, at step 0, with its log not yet open.
    """
    grouped = _of_groups(config)
    collects = config.algorithm not in PREFERENCES or config.pairs.source.kind != "offline"
    environments = make_environments(
        config.environment,
        config.environment.num_envs if collects else 1,
        evaluation=not collects,
        groups=grouped is not None,
        restorable=grouped is not None and grouped.starts.kind == "state",
        max_length=getattr(grouped, "max_length", None),
    )
    stack.push(lambda kind, *_: close(environments, failed=kind is not None))
    spaces = environments.single_observation_space, environments.single_action_space
    layout = make_layout(config, spaces[0])
    network = build_network(config, *spaces)
    if config.initial_weights is not None and Checkpoints(run_dir).latest() is None:  # a continued run has its own
        load_initial_weights(network, Path(config.initial_weights))
    algorithm = build_algorithm(config, network, fresh=lambda: build_network(config, *spaces))
    if not collects:
        schedules = algorithm.schedules
        journal = build_journal(config, run_dir, algorithm, layout, list, schedules, progress, stack)
        return _preferences(config, algorithm, layout, None, journal)
    starts = None
    if grouped is not None:
        starts = build_starts(grouped.starts, environments, group_size=grouped.group_size, seed=config.seed)
    collector = Collector(
        starts or environments,
        layout,
        algorithm.act,
        seeds=worker_seeds(config.seed, environments),
        device=config.device,
        on_start=getattr(algorithm.policy, "start", None),
        greedy=_greedy_marks(config, algorithm),
    )

    def journal_of(source: Collector | GroupCollector, *schedules: Scheduled) -> Journal:
        both = [*algorithm.schedules, *schedules]
        return build_journal(config, run_dir, algorithm, layout, source.pop_episodes, both, progress, stack)

    if starts is not None:
        players = GroupCollector(collector, starts, algorithm.policy, layout.keys)
        if config.algorithm in PREFERENCES:
            return _preferences(config, algorithm, layout, players, journal_of(players))
        return _groups(config, algorithm, players, journal_of(players))
    if config.algorithm == "ppo":
        return _on_policy(config, algorithm, layout, collector, journal_of(collector))
    return _off_policy(config, algorithm, collector, run_dir, journal_of)


def _of_groups(config: RunConfig) -> Any:
    """The block that says how trajectories of a group get their start; None where none are played in groups."""
    if config.algorithm == "grpo":
        return config.grpo
    if config.algorithm in PREFERENCES and config.pairs.source.kind != "offline":
        return config.pairs.source
    return None


def _greedy_marks(config: RunConfig, algorithm: Algorithm) -> Callable[[], Any] | None:
    """Where it is read off which actions were greedy; None where nobody asks."""
    if config.algorithm != "iqn" or not config.replay.cut_at_exploration:
        return None
    return lambda: algorithm.policy.last_greedy.cpu()


def _off_policy(
    config: RunConfig, algorithm: Algorithm, collector: Collector, run_dir: Path, journal: Callable[..., Journal]
) -> Loop:
    iqn, settings = config.iqn, config.replay
    replay = build_replay(config, run_dir, collector.layout)
    schedules = []
    if settings.kind == "prioritized":
        beta = settings.beta
        schedules.append(Scheduled("beta", lambda step: value_at(beta, step), replay.set_beta))
    return off_policy.OffPolicyLoop(
        _learner(algorithm, iqn.max_grad_norm, GraphedLearner if iqn.cuda_graph else Learner),
        collector,
        NStepWindow(
            iqn.num_steps,
            iqn.discount,
            cut_at_exploration=settings.cut_at_exploration,
            keep_partial_returns=iqn.fixed_horizon is not None,
        ),
        replay,
        off_policy.Pace(iqn.collect_steps, settings.warmup_steps, iqn.update_interval, iqn.batch_size, settings.ratio),
        journal(collector, *schedules),
    )


def _on_policy(
    config: RunConfig, algorithm: Algorithm, layout: ObservationLayout, collector: Collector, journal: Journal
) -> Loop:
    ppo, scaling = config.ppo, config.ppo.reward_scaling
    steps = ppo.num_steps * config.environment.num_envs
    advantages = Advantages(
        algorithm.policy,
        layout.keys,
        discount=ppo.discount,
        gae_lambda=ppo.gae_lambda,
        scaler=RewardScaler(ppo.discount, scaling.clip) if scaling.kind == "running" else None,
        device=config.device,
        chunk=max(steps // ppo.num_minibatches, 1),
    )
    return on_policy.OnPolicyLoop(
        _learner(algorithm, ppo.max_grad_norm),
        collector,
        algorithm.policy,
        advantages,
        observing_rollouts(algorithm.policy.network),
        on_policy.Pace(ppo.num_steps, ppo.num_epochs, ppo.num_minibatches, ppo.target_kl),
        journal,
    )


def _groups(config: RunConfig, algorithm: Algorithm, collector: GroupCollector, journal: Journal) -> Loop:
    grpo = config.grpo
    attempts = grpo.zero_variance.max_attempts if grpo.zero_variance.kind == "resample" else 1
    return groups.GroupLoop(
        _learner(algorithm, grpo.max_grad_norm),
        cast("GRPOLoss", algorithm.loss),
        collector,
        groups.Scoring(
            credit=grpo.advantages.kind,
            baseline=grpo.advantages.baseline,
            scale=grpo.advantages.scale,
            discount=grpo.discount,
            zero_variance=grpo.zero_variance.kind,
            truncation=grpo.truncation,
            reduction=grpo.reduction,
            max_length=grpo.max_length,
        ),
        observing_rollouts(algorithm.policy.network),
        groups.Pace(grpo.num_groups, grpo.num_epochs, grpo.num_minibatches, attempts),
        journal,
        config.device,
    )


def _preferences(
    config: RunConfig,
    algorithm: Algorithm,
    layout: ObservationLayout,
    collector: GroupCollector | None,
    journal: Journal,
) -> Loop:
    settings, source, network = preference_settings(config), config.pairs.source, algorithm.policy.network
    return preferences.PreferenceLoop(
        _learner(algorithm, settings.max_grad_norm),
        cast("Policies", algorithm.saved),
        build_batches(config, algorithm, layout),
        build_stored_pairs(config, layout),
        None if collector is None else build_fresh_pairs(config, collector, layout),
        observing_rollouts(network),
        algorithm.policy.greedy,
        preferences.Pace(
            settings.batch_size, getattr(source, "num_epochs", 1), getattr(source, "offline_fraction", 0.0)
        ),
        journal,
        build_cloning(config, network),
    )


def _learner(algorithm: Algorithm, max_grad_norm: float | None, kind: type[Learner] = Learner) -> Learner:
    return kind(
        loss=algorithm.loss,
        forward=algorithm.forward,
        parameters=algorithm.parameters,
        optimizer=algorithm.optimizer,
        max_grad_norm=max_grad_norm,
        updated=algorithm.updated,
    )


def build_journal(
    config: RunConfig,
    run_dir: Path,
    algorithm: Algorithm,
    layout: ObservationLayout,
    pop_episodes: Callable[[], list[Episode]],
    schedules: list[Scheduled],
    progress: ProgressDisplay,
    stack: ExitStack,
) -> Journal:
    """Builds what counts, reports, evaluates and writes checkpoints.

    Args:
        config: the whole configuration.
        run_dir: directory of the run.
        algorithm: whose greedy policy is evaluated.
        layout: the keys that the task's observations yield.
        pop_episodes: the training episodes that ended since the last call.
        schedules: hyper-parameters that change with the step.
        progress: what a person sees.
        stack: closes the log and the environments of evaluations.
    """
    title = run_title(config.name, run_dir) if config.logging.wandb else None
    log = MetricsLog(run_dir, tensorboard=config.logging.tensorboard, wandb=title)
    stack.callback(log.close)
    return Journal(
        Intervals(
            config.total_steps,
            config.logging.interval,
            config.evaluation.interval,
            config.checkpoint.interval,
            config.environment.frames_per_step,
            config.environment.reward_factor,
        ),
        schedules,
        pop_episodes,
        _evaluator(config, algorithm, layout, stack),
        Checkpoints(run_dir, keep_last=config.checkpoint.keep_last, keep_best=config.checkpoint.keep_best),
        log,
        progress,
    )


def _evaluator(
    config: RunConfig, algorithm: Algorithm, layout: ObservationLayout, stack: ExitStack
) -> Callable[[], Evaluation]:
    """What the loop calls to evaluate: the greedy policy, in environments of its own, on the same seeds every time."""
    settings = config.evaluation
    environments = make_environments(config.environment, min(settings.num_envs, settings.episodes), evaluation=True)
    stack.callback(environments.close)
    seeds = range(settings.seed, settings.seed + settings.episodes)
    return lambda: play(config, algorithm, environments, layout, seeds)


def run_title(name: str | None, run_dir: Path) -> str:
    """What tells a run from others: its directory is called like its configuration, or, in a sweep, like its seed."""
    return run_dir.name if run_dir.name.startswith(str(name)) else f"{name}-{run_dir.name}"
