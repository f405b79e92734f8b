"""From a configuration to a loop that is ready to run."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tesserl_configs import RunConfig, value_at
from tesserl_iqn.replay import NStepWindow
from tesserl_trainer.commands.evaluate import play
from tesserl_trainer.loops.off_policy import Intervals, Learner, OffPolicyLoop
from tesserl_trainer.run.checkpoint import Checkpoints
from tesserl_trainer.run.collect import Collector
from tesserl_trainer.run.evaluate import Evaluation
from tesserl_trainer.run.logging import MetricsLog
from tesserl_trainer.run.observations import ObservationLayout
from tesserl_trainer.run.progress import ProgressDisplay
from tesserl_trainer.run.schedule import Scheduled
from tesserl_trainer.run.workers import close
from tesserl_trainer.wiring.algorithms import Algorithm, build_algorithm
from tesserl_trainer.wiring.environments import make_environments, worker_seeds
from tesserl_trainer.wiring.networks import build_network, make_layout
from tesserl_trainer.wiring.replay import build_replay


def assemble(config: RunConfig, run_dir: Path, progress: ProgressDisplay, stack: ExitStack) -> OffPolicyLoop:
    """Builds everything that a run needs.

    Args:
        config: what to train.
        run_dir: directory of the run.
        progress: where the loop shows how far it is.
        stack: closes environments and logs when the run is over.

    Returns:
        The loop, at step 0, with its log not yet open.
    """
    environments = make_environments(config.environment, config.environment.num_envs)
    stack.push(lambda kind, *_: close(environments, failed=kind is not None))
    spaces = environments.single_observation_space, environments.single_action_space
    layout = make_layout(config, spaces[0])
    algorithm = build_algorithm(config, build_network(config, *spaces))
    collector = Collector(
        environments,
        layout,
        algorithm.act,
        seeds=worker_seeds(config.seed, environments),
        device=config.device,
        timeout=config.environment.worker_timeout,
    )
    replay = build_replay(config, run_dir)
    schedules = list(algorithm.schedules)
    if config.replay.kind == "prioritized":
        beta = config.replay.beta
        schedules.append(Scheduled("beta", lambda step: value_at(beta, step), replay.set_beta))
    log = MetricsLog(
        run_dir, tensorboard=config.logging.tensorboard, wandb=run_dir.name if config.logging.wandb else None
    )
    stack.callback(log.close)
    return OffPolicyLoop(
        Learner(
            loss=algorithm.loss,
            forward=algorithm.forward,
            parameters=algorithm.parameters,
            optimizer=algorithm.optimizer,
            update_target=algorithm.update_target,
            max_grad_norm=config.iqn.max_grad_norm,
        ),
        collector,
        NStepWindow(config.iqn.num_steps, config.iqn.discount),
        replay,
        schedules,
        _intervals(config),
        _evaluator(config, algorithm, layout, stack),
        Checkpoints(run_dir, keep_last=config.checkpoint.keep_last, keep_best=config.checkpoint.keep_best),
        log,
        progress,
    )


def _intervals(config: RunConfig) -> Intervals:
    return Intervals(
        total_steps=config.total_steps,
        warmup_steps=config.replay.warmup_steps,
        update_interval=config.iqn.update_interval,
        collect_steps=config.iqn.collect_steps,
        batch_size=config.iqn.batch_size,
        logging=config.logging.interval,
        evaluation=config.evaluation.interval,
        checkpoint=config.checkpoint.interval,
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
