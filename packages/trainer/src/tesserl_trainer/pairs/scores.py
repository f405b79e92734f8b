"""The scores that ``tesserl pairs make --by`` can select."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from gymnasium.spaces import Box
from tensordict import TensorDictBase
from torch import Tensor

from tesserl_configs.iqn import IQNConfig
from tesserl_policy import returns_to_go
from tesserl_preference_data import SegmentPool, score_first_steps
from tesserl_trainer.algorithms.programs import load_program
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.networks.programs import Program
from tesserl_trainer.running.run_directory import run_config
from tesserl_trainer.usage import ArgumentError
from tesserl_training.checkpoints.run_checkpoints import Checkpoints


@dataclass(frozen=True)
class Score:
    """A way to score segments."""

    discount: float = 1.0
    of_steps: Callable[[TensorDictBase], Tensor] | None = None  # from an episode [T] to [T] or [T, 1]; None: rewards
    first_only: bool = False  # true: the value of the first step is the score of the segment

    def apply(self, pool: SegmentPool) -> SegmentPool:
        """Return the segments with their scores."""
        return score_first_steps(pool) if self.first_only else pool


def parse_score(by: str) -> Score:
    """Parse a value of ``--by``."""
    kind, _, value = by.partition(":")
    if by == "return":
        return Score()
    if kind == "regret" and value:
        return Score(of_steps=judgement_of(Path(value)))
    factor = _factor(value) if value else None
    if kind == "discounted" and factor is not None:
        return Score(discount=factor)
    if kind == "to_go" and (factor is not None or by == "to_go"):
        return Score(of_steps=partial(_to_go, discount=1.0 if factor is None else factor), first_only=True)
    raise ArgumentError(
        f"--by must be return, discounted:FACTOR, to_go, to_go:FACTOR or regret:RUN with a factor in [0, 1], got {by!r}"
    )


def judgement_of(run: Path) -> Callable[[TensorDictBase], Tensor]:
    """Return a function that scores actions by a trained policy: how much worse is each than the best one?

    For an action value the score is ``Q(s, a) - max Q(s, .)``, for an actor ``log pi(a | s) - max log pi(. | s)``. This
    is the negative regret, by which people judge according to Hejna et al. 2024 (arXiv:2310.13639); an actor's is in
    units of its temperature.

    Args:
        run: directory of a run with discrete actions and no memory; its best checkpoint is used.

    Returns:
        Function from an episode ``[T]`` to the scores of its steps, ``[T]``, at most 0.

    Raises:
        ArgumentError: the policy of the run has a memory, or its actions are continuous.
        StorageError: the run does not exist or is damaged.
    """
    config = run_config(run, ["device=cpu"])
    task = Task(config)
    num_taus = config.options.num_policy_taus if isinstance(config.options, IQNConfig) else None
    program = load_program(task, Checkpoints(run).load_weights("best"), num_taus)
    if program.more_inputs() or isinstance(task.action_space, Box):
        raise ArgumentError(f"--by regret:{run}: expected a policy of discrete actions without memory, got another")
    shapes = {key: tuple(shape) for key, shape in task.layout.shapes.items()}
    return partial(_judge, program, shapes, run)


@torch.no_grad()
def _judge(program: Program, shapes: Mapping[str, tuple[int, ...]], run: Path, episode: TensorDictBase) -> Tensor:
    """Return the score of each step, ``[T]``."""
    got = {key: tuple(entry.shape[1:]) for key, entry in episode.items() if key in shapes}
    if got != shapes:
        raise ArgumentError(f"--by regret:{run}: expected episodes with steps of {shapes}, got {got}; name another run")
    choices = program.choices(program(**{key: episode[key] for key in shapes}), episode["action"])
    worse = [values.gather(-1, action.unsqueeze(-1)).squeeze(-1) - values.amax(-1) for values, action in choices]
    return torch.stack([each.reshape(len(episode), -1).sum(-1) for each in worse]).sum(0)


def _to_go(episode: TensorDictBase, *, discount: float) -> Tensor:
    """Return the discounted return from each step to the end of the episode."""
    reward = episode["next", "reward"].reshape(1, -1)
    return returns_to_go(reward, torch.ones_like(reward, dtype=torch.bool), discount=discount).squeeze(0)


def _factor(text: str) -> float | None:
    """Parse a number in [0, 1]; return None for any other text."""
    with suppress(ValueError):
        return float(text) if 0 <= float(text) <= 1 else None
    return None
