"""Play whole episodes of a fixed policy, and record each step for a store of trajectories."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from tesserl_collectors.collector import Collector
from tesserl_collectors.rollout_policy import RolloutPolicy
from tesserl_environments import ActionMask, GroupStarts

OUTCOME = ("reward", "terminated", "truncated", "done")

Frames = Callable[[], Sequence[Tensor]]
"""Returns the current picture of every environment, encoded as tensors of the same shape."""


class UniformActions:
    """Draw uniformly random actions among the allowed ones.

    Args:
        space: action space of one environment.
        seed: seed of the random numbers.
        mask: reads the action mask, which is the last input of `act`; None if there is no mask.

    Raises:
        ValueError: the space has no supported uniform distribution.
    """

    def __init__(self, space: spaces.Space[Any], seed: int, *, mask: ActionMask | None = None) -> None:
        self._mask = mask
        self._random = np.random.default_rng(seed)
        self._real = isinstance(space, spaces.Box)
        self._low: Any
        self._high: Any
        if isinstance(space, spaces.Box) and space.is_bounded():
            self._low, self._high = space.low.astype(np.float64), space.high.astype(np.float64)
            self._log_density = -float(np.log(self._high - self._low).sum())
        elif isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
            sizes = space.n if isinstance(space, spaces.Discrete) else space.nvec
            self._low = np.asarray(space.start, np.int64)
            self._high = np.asarray(self._low + sizes, np.int64)
            self._log_density = -float(np.log(sizes).sum())
        else:
            raise ValueError(
                f"random actions need a Discrete, MultiDiscrete or bounded Box space, got {space}; "
                "use a trained policy, without --epsilon"
            )

    def act(self, *inputs: Tensor) -> Tensor:
        """Draw actions ``[N, ...]`` for inputs ``[N, ...]``; only the mask is used."""
        number = len(inputs[0])
        shape = (number, *self._low.shape)
        if self._mask is not None:
            return torch.from_numpy(self._mask.draw(inputs[-1].cpu().numpy(), self._random))
        if self._real:
            return torch.from_numpy(self._random.uniform(self._low, self._high, shape).astype(np.float32))
        return torch.from_numpy(self._random.integers(self._low, self._high, shape))

    def choose(self, probability: float, number: int) -> Tensor:
        """Return flags of the environments that act at random, bool ``[number]``."""
        return torch.from_numpy(self._random.random(number) < probability)

    def log_prob(self, action: Tensor, *inputs: Tensor) -> Tensor:
        """Return the log-probability (or log-density) of actions, ``[N]``; minus infinity for impossible actions.

        Args:
            action: actions, ``[N, ...]``.
            *inputs: inputs of `act`.
        """
        if self._mask is not None:
            masks = inputs[-1].cpu().numpy()
            log_density = np.where(self._mask.permits(masks, action.numpy()), self._mask.log_density(masks), -np.inf)
            return torch.from_numpy(log_density).float()
        low, high = torch.from_numpy(self._low).reshape(-1), torch.from_numpy(self._high).reshape(-1)
        rows = action.reshape(len(action), -1)
        inside = ((rows >= low) & (rows <= high)).all(dim=1)
        return torch.where(inside, self._log_density, -torch.inf).float()


class Behavior:
    """Act, and record the log-probability and the picture of each step.

    Args:
        policy: a ``RolloutPolicy`` or ``UniformActions``, whose log-probabilities are recorded; or any other object
            with ``act``, with unknown log-probabilities.
        uniform: random actions to mix in; None for none.
        epsilon: probability of taking an action of ``uniform`` instead of the policy's, in (0, 1); unused without
            ``uniform``.
        frames: returns the pictures to record; None records none.
    """

    def __init__(
        self,
        policy: Any,
        uniform: UniformActions | None = None,
        *,
        epsilon: float = 0.0,
        frames: Frames | None = None,
    ) -> None:
        self.policy, self._uniform, self._epsilon, self._frames = policy, uniform, epsilon, frames
        self._notes: list[dict[str, Tensor]] = []

    @torch.no_grad()
    def act(self, *inputs: Tensor) -> Tensor:
        """Choose actions ``[N, ...]`` for inputs ``[N, ...]``."""
        noted = {}
        if self._frames is not None:
            noted["frame"] = torch.stack(list(self._frames()))
        action: Tensor = self.policy.act(*inputs)
        if self._uniform is not None:
            is_random = self._uniform.choose(self._epsilon, len(action)).to(action.device)
            drawn = self._uniform.act(*inputs).to(action)
            action = torch.where(is_random.reshape(-1, *[1] * (action.dim() - 1)), drawn, action)
        self._notes.append({**noted, "action_log_prob": self._log_prob(action, inputs).cpu()})
        return action

    def _log_prob(self, action: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        """Return log-probabilities ``[N]`` of actions ``[N, ...]`` under the mixture; NaN if unknown."""
        if isinstance(self.policy, UniformActions):
            return self.policy.log_prob(action, *inputs)
        if not isinstance(self.policy, RolloutPolicy):
            return torch.full((len(action),), math.nan)
        network = self.policy.network
        parameters = [recorded[0] for recorded in self.policy.pop()[: len(network.parameter_keys)]]
        log_prob: Tensor = network.distribution(*parameters).log_prob(action)
        if self._uniform is None:
            return log_prob
        uniform = self._uniform.log_prob(action.cpu(), *inputs).to(log_prob)
        return torch.logaddexp(math.log1p(-self._epsilon) + log_prob, math.log(self._epsilon) + uniform)

    def pop(self) -> dict[str, Tensor]:
        """Return the entries recorded since the last call, ``[N, T, ...]``."""
        notes, self._notes = self._notes, []
        return {name: torch.stack([each[name] for each in notes], dim=1) for name in notes[0]}


def play_episodes(
    collector: Collector, starts: GroupStarts, behavior: Behavior, *, num_groups: int, chunk: int = 32
) -> Iterator[tuple[int, list[TensorDictBase]]]:
    """Play whole episodes: ``group_size`` of ``starts`` for each start.

    Starts are yielded in order, not in the order in which they end. So stopping early does not bias towards short
    episodes.

    Args:
        collector: steps ``starts`` with ``behavior``.
        starts: vector environment that assigns the starts.
        behavior: chooses the actions.
        num_groups: largest number of starts.
        chunk: steps of every environment between two checks for finished episodes.

    Yields:
        The number of a start, and its episodes ``[T]``: the observation keys, ``action``, the records of ``behavior``
        and, under ``next``, ``reward``, ``terminated``, ``truncated`` and ``done``.
    """
    upcoming = starts.next_group
    starts.begin(num_groups)
    collector.restart()
    running: list[list[TensorDictBase]] = [[] for _ in range(collector.num_envs)]
    played = [0] * collector.num_envs
    finished: dict[int, list[TensorDictBase]] = {}
    while upcoming < starts.next_group:
        steps = _steps(collector.collect(chunk), collector.layout.keys, behavior)
        collector.pop_episodes()
        for slot, row in enumerate(steps):
            begin = 0
            for end in (row["next", "done"].squeeze(-1).nonzero().squeeze(-1) + 1).tolist():
                group = starts.assigned[slot][played[slot]]
                if group >= 0:
                    finished.setdefault(group, []).append(TensorDict.cat([*running[slot], row[begin:end]]))
                running[slot], begin = [], end
                played[slot] += 1
            running[slot].append(row[begin:])
        while len(finished.get(upcoming, ())) == starts.group_size:
            yield upcoming, finished.pop(upcoming)
            upcoming += 1


def _steps(batch: TensorDictBase, keys: Sequence[str], behavior: Behavior) -> TensorDictBase:
    """Copy the entries of a batch ``[N, T]`` that episodes keep."""
    kept = {key: batch[key].clone() for key in (*keys, "action")}
    outcome = {name: batch["next", name].clone() for name in OUTCOME}
    return TensorDict({**kept, **behavior.pop(), "next": outcome}, batch.batch_size)
