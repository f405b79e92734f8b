"""Play episodes of a configured task with a trained or a random policy."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from tensordict import TensorDictBase
from torch import Tensor

from tesserl_collectors.collector import Collector
from tesserl_collectors.episodes import Behavior, UniformActions, play_episodes
from tesserl_collectors.rollout_policy import RolloutPolicy
from tesserl_configs import RunConfig
from tesserl_environments import GroupStarts, SeedStart, StateStart, closed_afterwards, derived_seed
from tesserl_environments.making import Environments, StartKind
from tesserl_grpo import check_shared_start
from tesserl_preference_data.pictures import encode_frame
from tesserl_storage.generators import seed_generators
from tesserl_trainer.algorithms.agent import Acting, start_of
from tesserl_trainer.algorithms.drawing import drawing, drawn_frames
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.usage import ArgumentError
from tesserl_training.checkpoints.run_checkpoints import Weights

WITHOUT_FRAMES = "collect with --no-frames"


@dataclass(frozen=True)
class Play:
    """Options of ``collect``: number of episodes and how to play them."""

    episodes: int | None
    steps: int | None
    stochastic: bool
    epsilon: float
    same_start: int
    starts: StartKind
    frames: bool

    def __post_init__(self) -> None:
        if (self.episodes is None) == (self.steps is None):
            raise ArgumentError(f"either episodes or steps must be said, got {self.episodes} and {self.steps}")
        wrong = {
            f"episodes must be at least 1, got {self.episodes}": self.episodes is not None and self.episodes < 1,
            f"steps must be at least 1, got {self.steps}": self.steps is not None and self.steps < 1,
            f"same_start must be at least 1, got {self.same_start}": self.same_start < 1,
            f"epsilon must be in [0, 1), got {self.epsilon}; for 1 play at random": not 0 <= self.epsilon < 1,
            f"starts must be seed or state, got {self.starts!r}": self.starts not in ("seed", "state"),
        }
        for rule, broken in wrong.items():
            if broken:
                raise ArgumentError(rule)
        if self.episodes is not None and self.episodes % self.same_start:
            raise ArgumentError(
                f"episodes must be a multiple of same_start, got {self.episodes} and {self.same_start}; "
                "every start has as many"
            )

    @property
    def most_starts(self) -> int:
        """Return an upper bound on the number of starts: an episode has at least one step."""
        return self.steps or (self.episodes or 0) // self.same_start


def play_groups(
    config: RunConfig, weights: Weights | None, play: Play, seed: int, first: int, stack: ExitStack
) -> Iterator[tuple[int, list[TensorDictBase]]]:
    """Play whole episodes from start number ``first`` on; yield each start number with its episodes."""
    config = drawing(config, remedy=WITHOUT_FRAMES) if play.frames else config
    task = Task(config)
    environments = _environments(task, play, stack)
    drawn = derived_seed(seed, first)
    seed_generators(drawn)
    mask = task.layout.mask
    if weights is None:
        policy: Acting = UniformActions(environments.single_action_space, drawn, mask=mask)
    else:
        policy = stack.enter_context(acting(task, weights, stochastic=play.stochastic))
    mixed = UniformActions(environments.single_action_space, drawn + 1, mask=mask) if play.epsilon > 0 else None
    frames = partial(_encoded_frames, environments) if play.frames else None
    behavior = Behavior(policy, mixed, epsilon=play.epsilon, frames=frames)
    kind = StateStart if play.starts == "state" else SeedStart
    grouped = GroupStarts(environments, kind(seed), group_size=play.same_start)
    grouped.next_group = first
    layout = task.layout
    collector = Collector(grouped, layout, behavior.act, device=config.device, on_start=start_of(policy))
    num_steps = 0
    for start, members in play_episodes(collector, grouped, behavior, num_groups=play.most_starts):
        _check_start(start, members, layout.keys)
        yield start, members
        num_steps += sum(len(member) for member in members)
        if play.steps is not None and num_steps >= play.steps:
            return


def _encoded_frames(environments: Environments) -> list[Tensor]:
    """Return the current pictures of all environments, encoded for a store."""
    return [encode_frame(picture) for picture in drawn_frames(environments, remedy=WITHOUT_FRAMES)]


def _environments(task: Task, play: Play, stack: ExitStack) -> Environments:
    config = task.config
    environments = task.environments(
        min(config.evaluation.num_envs, play.episodes or config.evaluation.num_envs),
        evaluation=True,
        starts=play.starts,
        max_length=config.evaluation.max_episode_steps,
    )
    return stack.enter_context(closed_afterwards(environments))


@contextmanager
def acting(task: Task, weights: Weights, *, stochastic: bool = False) -> Iterator[Acting]:
    """Load a policy that acts greedily or, if ``stochastic``, explores as in training at the checkpoint's step."""
    agent = task.agent()
    agent.load_networks(weights.networks, weights.path)
    if not stochastic:
        with agent.policy.greedy() as policy:
            yield policy
        return
    for schedule in agent.schedules:
        schedule.apply(schedule.value(weights.step))
    if isinstance(agent.policy, RolloutPolicy):
        agent.policy.network.eval()
    yield agent.policy


def _check_start(start: int, members: Sequence[TensorDictBase], keys: Sequence[str]) -> None:
    """Refuse episodes of one start whose first observations differ."""
    if len(members) > 1:
        for key in keys:
            firsts = torch.stack([member[key][0] for member in members])
            check_shared_start(firsts, torch.full((len(members),), start), name=key)
