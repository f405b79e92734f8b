"""Group-relative learning without a critic: each trajectory is compared with others from the same start.

repeat until ``total_steps``:
    play groups of trajectories, all trajectories of a group from the same start (a reset or a visited state)
    (optionally replace groups in which all returns are equal)
    advantages from the returns of the group
    for a few epochs: one gradient step on each of the shuffled minibatches, unless no group is left
    bring the observation statistics up to date
    log, evaluate and checkpoint when their interval has passed
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor

from tesserl_collectors.interfaces import GroupCollecting
from tesserl_collectors.transfers import Uploads
from tesserl_grpo import GRPOLoss, ScoredGroups, flatten_steps, pad_trajectories, score_groups, step_weights
from tesserl_policy import returns_to_go
from tesserl_ranks.shares import count_minibatches, slices
from tesserl_training.checkpoints.checkpoint import Checkpoint
from tesserl_training.checkpoints.loading import load_module
from tesserl_training.journal import Journal
from tesserl_training.learner import Learner
from tesserl_training.logging import Averages
from tesserl_training.loops.epochs import learn_epoch

STEP_COUNT = "step_count"
"""Entry of trajectories that may begin in visited states: steps since the reset."""


@dataclass
class Pace:
    """Sizes of an iteration: groups, epochs over it, minibatches of an epoch.

    ``max_attempts`` limits the replacement of groups with equal returns: at most this many times the number of groups
    is collected.
    """

    num_groups: int
    num_epochs: int
    num_minibatches: int
    max_attempts: int = 1


@dataclass
class Scoring:
    """Scores trajectories; the fields are arguments of ``tesserl_grpo`` for advantages and weights of steps."""

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
            step_count=STEP_COUNT if STEP_COUNT in batch else None,
        )


class GroupLoop:
    """The loop of group-relative learning; a checkpoint stores its state and that of its parts.

    With ``few_sizes``, minibatches of steps are padded to few different sizes, because each size needs a separate CUDA
    graph.
    """

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
        *,
        few_sizes: bool = False,
    ) -> None:
        self.learner, self.loss, self.collector, self.scoring = learner, loss, collector, scoring
        self.observe, self.pace, self.journal = observe, pace, journal
        self._upload, self.few_sizes = Uploads(device), few_sizes
        learner.share(journal.ranks)
        self._groups = Averages()  # metrics of the groups since the last report

    def run(self) -> None:
        """Train until ``total_steps``, or until ``journal.stop`` is set; write a checkpoint in both cases.

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
            journal.step += self._count(trajectories)
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
            return played, scored  # no group has a nonzero advantage: the batch is empty
        return played, self.scoring(kept, torch.cat(kept_groups))

    def _count(self, trajectories: list[TensorDictBase]) -> int:
        """Return the number of environment steps of trajectories, with replayed ones, whose fraction is reported."""
        steps = sum(len(trajectory) for trajectory in trajectories)
        firsts = [trajectory[STEP_COUNT][0] for trajectory in trajectories if STEP_COUNT in trajectory]
        if not firsts:
            return steps
        replayed = int(torch.cat(firsts).sum())
        self._groups.add({"replayed_fraction": torch.tensor(replayed / (steps + replayed))})
        return steps + replayed

    def _metrics(self) -> dict[str, float]:
        return {f"train/{name}": value for name, value in self._groups.pop().items()}

    def _learn(self, batch: TensorDictBase) -> None:
        """Run the epochs over the trajectories, or over their shuffled steps if ratios are per step.

        The metrics of the last epoch are recorded.
        """
        journal, pace = self.journal, self.pace
        batch = batch[batch["mask"].any(dim=1)]  # truncation "mask" can leave trajectories without a valid step
        if not len(batch):
            journal.skipped += 1
            return
        mask = batch["mask"]  # on the CPU, so that reading it waits for no GPU
        weights = step_weights(mask, reduction=self.scoring.reduction, max_length=self.scoring.max_length)
        size = len(batch) if self.loss.needs_trajectories else int(mask.sum())
        # share of the minibatch in the update
        batch["step_weight"] = weights * count_minibatches(size, pace.num_minibatches)
        batch = self._upload.batch(batch)
        extra = ["step_weight"]
        if "kl_coef" not in self.loss.zero_coefficients and self.loss.kl_kind != "exact":
            batch["reference_log_prob"] = self.loss.reference_log_probs(batch)
            extra.append("reference_log_prob")
        data = batch
        if not self.loss.needs_trajectories:
            data = flatten_steps(batch, keys=[*self.loss.in_keys, *extra], mask=mask)
        is_padded = self.few_sizes and not self.loss.needs_trajectories
        for epoch in range(pace.num_epochs):
            parts = slices(journal.ranks, data, pace.num_minibatches, summed="step_weight")
            if is_padded:
                parts = ((padded_steps(minibatch), weight) for minibatch, weight in parts)
            measured = learn_epoch(self.learner, parts, journal, measured=epoch == pace.num_epochs - 1)
        for metrics in measured:
            journal.averages.add(metrics)
        journal.watch_finite("lower optimizer.learning_rate or grpo.max_grad_norm")

    def save(self) -> None:
        """Write a checkpoint."""
        self.journal.save(self.state_dict)

    def state_dict(self) -> dict[str, object]:
        """Return the state needed to resume, besides the journal's; no trajectory is in progress."""
        return {
            "networks": self.loss.state_dict(),
            "optimizer": self.learner.optimizer.state_dict(),
            "collector": self.collector.state_dict(),
            "groups": self._groups.state_dict(),
        }

    def load(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint."""
        saved = checkpoint.state
        load_module(self.loss, saved["networks"], str(checkpoint.path))
        self.learner.load_optimizer(saved["optimizer"])
        self.collector.load_state_dict(saved["collector"])
        self._groups.load_state_dict(saved["groups"])
        self.journal.load(saved, restored=True)


def expected_rest(batch: TensorDictBase, *, discount: float) -> Tensor:
    """Return the mean return to go of the group's longer trajectories at each trajectory's end, ``[P]``; 0 if none."""
    mask, group = batch["mask"], batch["group"].reshape(batch["mask"].shape[0], -1)[:, 0]
    returns = returns_to_go(batch["next", "reward"].squeeze(-1), mask, discount=discount)
    lengths = mask.sum(dim=1)
    at_the_end = torch.nn.functional.pad(returns, (0, 1))[:, lengths]  # [P, P]: return to go of i when j ends
    longer = (group.unsqueeze(1) == group) & (lengths.unsqueeze(1) > lengths)
    return torch.where(longer, at_the_end, 0.0).sum(dim=0) / longer.sum(dim=0).clamp(min=1)


def padded_steps(minibatch: TensorDictBase) -> TensorDictBase:
    """Pad a minibatch of steps to one of four sizes per power of two; ``mask`` marks the valid steps."""
    number = len(minibatch)
    grain = max(1 << (number.bit_length() - 3), 1) if number > 2 else 1
    place = torch.arange(-(-number // grain) * grain, device=minibatch.device)
    padded = minibatch[place.clamp(max=number - 1)]
    padded["mask"] = place < number
    return padded
