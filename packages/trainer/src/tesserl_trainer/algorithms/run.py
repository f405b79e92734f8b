"""Parts of every algorithm's loop: the directory of the run, its journal, and its collectors."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from torch import nn

from tesserl_analysis import run_files
from tesserl_collectors.collector import Collector, Episode, Marks, Records
from tesserl_collectors.interfaces import WorkerRecord
from tesserl_configs import RunConfig
from tesserl_configs.btr import options_of
from tesserl_configs.diff import flat_data
from tesserl_configs.loader import as_data
from tesserl_configs.run_keys import MLflowConfig, TrackioConfig, WandbConfig
from tesserl_environments import GroupStarts, closed_afterwards, worker_seeds
from tesserl_environments.making import Environments
from tesserl_ranks.group import ALONE, Ranks
from tesserl_trainer.algorithms.agent import AnyActor, AnyAgent, start_of
from tesserl_trainer.algorithms.evaluations import build_player
from tesserl_trainer.algorithms.filming import Camera
from tesserl_trainer.algorithms.initial_weights import load_initial_weights
from tesserl_trainer.algorithms.task import Task
from tesserl_training.checkpoints.names import checkpoint_name
from tesserl_training.checkpoints.run_checkpoints import Checkpoints
from tesserl_training.checkpoints.run_identity import require_identity
from tesserl_training.evaluations import EarlyStopping, Evaluations, Player
from tesserl_training.journal import Intervals, Journal
from tesserl_training.loggers import LoggedRun, MLflowLogger, Opener, TrackioLogger, WandbLogger
from tesserl_training.logging import MetricsLog, NoLog
from tesserl_training.progress import ProgressDisplay
from tesserl_training.schedule import Scheduled
from tesserl_training.shared_evaluation import SharedPlayer


@dataclass
class Run:
    """Context in which the loop of a run is built."""

    directory: Path
    progress: ProgressDisplay
    stack: ExitStack  # closes environments and logs when the run is over
    ranks: Ranks = ALONE

    def keep(self, environments: Environments) -> Environments:
        """Register environments to be closed when the run ends; return them."""
        return self.stack.enter_context(closed_afterwards(environments))

    def network(self, task: Task) -> nn.Module:
        """Build the network; load ``initial_weights`` into it only in a new run."""
        network, weights = task.network(), task.config.initial_weights
        if weights is not None and Checkpoints(self.directory).latest() is None:
            load_initial_weights(network, weights)
        return network

    def journal(
        self,
        task: Task,
        agent: AnyAgent,
        pop_episodes: Callable[[], list[Episode]],
        schedules: Sequence[Scheduled] = (),
        *,
        workers: WorkerRecord | None = None,
    ) -> Journal:
        """Build the object that counts, reports, evaluates and saves; without ``workers`` a lost one ends the run."""
        config = task.config
        openers = {} if self.ranks.rank else loggers_of(config, self.directory)
        log = (NoLog if self.ranks.rank else MetricsLog)(self.directory, openers, self.progress.note)
        self.stack.callback(log.close)
        kept = config.checkpoint
        checkpoints = Checkpoints(
            self.directory, keep_last=kept.keep_last, keep_best=kept.keep_best, read_only=self.ranks.rank > 0
        )
        return Journal(
            Intervals(
                config.total_steps,
                config.logging.interval,
                config.evaluation.interval,
                config.checkpoint.interval,
                config.environment.frames_per_step,
                config.environment.reward_factor,
                None if config.evaluation.video is None else config.evaluation.video.interval,
            ),
            [*agent.schedules, *schedules],
            pop_episodes,
            Evaluations(self._player(task, agent), checkpoints, log, self.progress, early_stopping_of(config)),
            checkpoints,
            log,
            self.progress,
            self._filmer(task, agent),
            self.ranks,
            workers,
        )

    def _player(self, task: Task, agent: AnyAgent) -> Player:
        """Return the player of the evaluation episodes; only rank 0 plays them."""
        if self.ranks.number == 1:
            return build_player(task, agent, self.stack)
        player = None if self.ranks.rank else build_player(task, agent, self.stack)
        return SharedPlayer(self.ranks, player, in_background=task.config.evaluation.process)

    def _filmer(self, task: Task, agent: AnyAgent) -> Callable[[int], None] | None:
        """Return the function that films the first evaluation episode at a step; None if films are off."""
        config = task.config
        if config.evaluation.video is None:
            return None
        if self.ranks.rank:
            return _never
        camera = Camera(config, self.directory / run_files.VIDEOS, self.stack, remedy="remove evaluation.video")
        camera.try_out(config.evaluation.seed)

        def film(step: int) -> None:
            with agent.policy.greedy() as policy:
                camera.film(policy, checkpoint_name(step), config.evaluation.seed)

        return film


def _never(*_: object) -> NoReturn:
    raise RuntimeError("only rank 0 evaluates and films; call the journal's methods")


def loggers_of(config: RunConfig, run_dir: Path) -> dict[str, Opener]:
    """Return the functions that open the loggers of a run, by configuration key."""
    block, openers = config.logging, dict[str, Opener]()
    if block.tensorboard:
        from tesserl_training.event_file import EventFile  # needs TensorBoard

        openers["tensorboard"] = lambda step: EventFile(
            run_dir / run_files.TENSORBOARD, purge_step=None if step is None else step + 1
        )

    def logged() -> LoggedRun:
        identity = require_identity(run_dir)
        return LoggedRun(run_title(config.name, run_dir), identity.run_id, as_data(config), flat_data(config))

    if wandb := options_of(block.wandb, WandbConfig):
        openers["wandb"] = lambda step: WandbLogger(logged(), run_dir, resumed=step is not None, **dict(wandb))
    if mlflow := options_of(block.mlflow, MLflowConfig):
        openers["mlflow"] = lambda step: MLflowLogger(logged(), resumed=step is not None, **dict(mlflow))
    if trackio := options_of(block.trackio, TrackioConfig):
        openers["trackio"] = lambda step: TrackioLogger(logged(), resumed=step is not None, **dict(trackio))
    return openers


def early_stopping_of(config: RunConfig) -> EarlyStopping | None:
    """Return the rule for ending a run before ``total_steps``; None if there is none."""
    block = config.early_stopping
    return None if block is None else EarlyStopping(block.target, block.evaluations)


def make_collector(
    task: Task,
    actor: AnyActor,
    environments: Environments,
    *,
    starts: GroupStarts | None = None,
    greedy: Marks | None = None,
    records: Records | None = None,
) -> Collector:
    """Make the collector of an actor.

    Args:
        task: of the run.
        actor: chooses the actions.
        environments: environments to step.
        starts: resets the environments to the starts of groups; None resets each one at the end of its episode.
        greedy: returns which of the last actions were greedy; None does not record it.
        records: returns the policy's extra entries of each batch; None adds none.
    """
    return Collector(
        starts or environments,
        task.layout,
        actor.act,
        seeds=worker_seeds(task.config.seed, environments, first=task.first_environment),
        device=task.config.device,
        on_start=start_of(actor.policy),
        greedy=greedy,
        records=records,
    )


def run_title(name: str | None, run_dir: Path) -> str:
    """Return the title of a run: its directory's name if that begins with the configured name, else both names."""
    return run_dir.name if run_dir.name.startswith(str(name)) else f"{name}-{run_dir.name}"
