"""Learning from what the trajectories of a group did differently: no critic, only each other.

repeat until ``total_steps``:
    play groups of trajectories, those of a group from the same start
    (collect others in the place of groups in which all did equally well)
    advantages from the returns of the group
    for a few epochs: one gradient step on each of the shuffled minibatches, if there is anything to learn from
    bring the observation statistics up to date
    log, evaluate and checkpoint when their interval has passed
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor

from tesserl_grpo import GRPOLoss, ScoredGroups, flatten_steps, pad_trajectories, score_groups, step_weights
from tesserl_trainer.checkpoints.checkpoint import Checkpoint
from tesserl_trainer.checkpoints.loading import load_module
from tesserl_trainer.collecting.groups import expected_rest
from tesserl_trainer.collecting.interfaces import GroupCollecting
from tesserl_trainer.collecting.rollout import count_minibatches
from tesserl_trainer.ranks.shares import slices
from tesserl_trainer.training.journal import Journal
from tesserl_trainer.training.learner import Learner
from tesserl_trainer.training.logging import Averages


@dataclass
class Pace:
    """Sizes of an iteration: groups, epochs over it, minibatches of an epoch.

    ``max_attempts`` is how many times as many groups may be collected where those without a difference are replaced.
    """

    num_groups: int
    num_epochs: int
    num_minibatches: int
    max_attempts: int = 1


@dataclass
class Scoring:
    """Arguments of ``tesserl_grpo`` for advantages of trajectories and weights of steps."""

    credit: Literal["trajectory", "to_go"]
    baseline: str
    scale: Literal["none", "group", "batch"]
    discount: float
    zero_variance: Literal["keep", "drop", "resample"]
    truncation: Literal["keep", "mask", "bootstrap"]
    reduction: Literal["grpo", "dapo", "dr_grpo"]
    max_length: int | None

    def __call__(self, trajectories: list[TensorDictBase], group: Tensor) -> ScoredGroups:
        """Pad trajectories and score them."""
        batch = pad_trajectories(trajectories, group)
        rest = expected_rest(batch, discount=self.discount) if self.truncation == "bootstrap" else None
        return score_groups(
            batch,
            credit=self.credit,
            discount=self.discount,
            baseline=self.baseline,
            scale=self.scale,
            zero_variance=self.zero_variance,
            truncation=self.truncation,
            next_value=rest,
        )


class GroupLoop:
    """The loop with everything that it drives. Its state, and that of its parts, is what a checkpoint holds."""

    def __init__(
        self,
        learner: Learner,
        loss: GRPOLoss,
        collector: GroupCollecting,
        scoring: Scoring,
        observe: Callable[[TensorDictBase], None],
        pace: Pace,
        journal: Journal,
        device: torch.device | str = "cpu",
    ) -> None:
        self.learner, self.loss, self.collector, self.scoring = learner, loss, collector, scoring
        self.observe, self.pace, self.journal = observe, pace, journal
        self.device = torch.device(device)
        learner.share(journal.ranks)
        self._groups = Averages()  # what the groups said of themselves since the last report

    def run(self) -> None:
        """Trains until ``total_steps``, or until ``journal.stop`` is set; leaves a checkpoint in both cases.

        Trajectories are never cut short: the last iteration may go beyond ``total_steps``.

        Raises:
            DivergenceError: the loss became NaN or infinite.
        """
        journal = self.journal
        while journal.running:
            before = journal.begin_round()
            self.collector.set_weights(journal.updates, journal.step)
            trajectories, scored = self._collect()
            journal.laps.lap("advantages")
            self._learn(scored.batch)
            for trajectory in trajectories:
                self.observe(trajectory)
            journal.end_round(before, self.save, self._metrics)
        self.save()

    def _collect(self) -> tuple[list[TensorDictBase], ScoredGroups]:
        """Collect groups with a nonzero advantage, within the limit of attempts."""
        journal, wanted = self.journal, self.pace.num_groups
        played: list[TensorDictBase] = []
        kept: list[TensorDictBase] = []
        kept_groups: list[Tensor] = []
        missing, attempts = wanted, 0
        while missing and attempts < self.pace.max_attempts * wanted:
            trajectories, group = self.collector.collect(missing)
            attempts += missing
            journal.step += sum(len(trajectory) for trajectory in trajectories)
            journal.laps.lap("collect")
            scored = self.scoring(trajectories, group)
            self._groups.add({name: torch.tensor(value) for name, value in scored.metrics.items()})
            played += trajectories
            if self.pace.max_attempts == 1:
                return played, scored
            good = ~torch.isin(group, scored.zero_variance_groups.cpu())
            kept += [trajectory for trajectory, is_good in zip(trajectories, good.tolist(), strict=True) if is_good]
            kept_groups.append(group[good])
            missing = wanted - len(torch.unique(torch.cat(kept_groups)))
        if not kept:
            return played, scored  # nothing to learn from: the batch is empty
        return played, self.scoring(kept, torch.cat(kept_groups))

    def _metrics(self) -> dict[str, float]:
        return {f"train/{name}": value for name, value in self._groups.pop().items()}

    def _learn(self, batch: TensorDictBase) -> None:
        """Run the epochs over the trajectories, or over their shuffled steps if ratios are per step."""
        journal, pace = self.journal, self.pace
        batch = batch[batch["mask"].any(dim=1)].to(self.device)  # truncation mask leaves trajectories without a step
        if not len(batch):
            journal.skipped += 1
            return
        weights = step_weights(batch["mask"], reduction=self.scoring.reduction, max_length=self.scoring.max_length)
        size = len(batch) if self.loss.needs_trajectories else int(batch["mask"].sum())
        # of a minibatch, which is a part of the whole
        batch["step_weight"] = weights * count_minibatches(size, pace.num_minibatches)
        extra = ["step_weight"]
        if self.loss.kl_coef and self.loss.kl_kind != "exact":
            batch["reference_log_prob"] = self.loss.reference_log_probs(batch)
            extra.append("reference_log_prob")
        data = batch
        if not self.loss.needs_trajectories:
            data = flatten_steps(batch, keys=[*self.loss.in_keys, *extra])
        for _ in range(pace.num_epochs):
            for minibatch, weight in slices(journal.ranks, data, pace.num_minibatches, summed="step_weight"):
                journal.laps.lap("minibatches")
                journal.updates += 1
                metrics = self.learner.update(minibatch, journal.updates, journal.laps.lap, weight)
                journal.averages.add(metrics)
        journal.require_finite("lower optimizer.learning_rate or grpo.max_grad_norm")

    def save(self) -> None:
        """Write a checkpoint."""
        self.journal.save(self.state_dict)

    def state_dict(self) -> dict[str, object]:
        """Return the state needed to resume, besides the journal's; every trajectory is complete."""
        return {
            "networks": self.loss.state_dict(),
            "optimizer": self.learner.optimizer.state_dict(),
            "collector": self.collector.state_dict(),
            "groups": self._groups.state_dict(),
        }

    def load(self, checkpoint: Checkpoint) -> None:
        """Continues from a checkpoint."""
        saved = checkpoint.state
        load_module(self.loss, saved["networks"], str(checkpoint.path))
        self.learner.load_optimizer(saved["optimizer"])
        self.collector.load_state_dict(saved["collector"])
        self._groups.load_state_dict(saved["groups"])
        self.journal.load(saved, restored=True)
