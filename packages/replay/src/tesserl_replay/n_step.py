"""Multi-step returns that end where an episode ends.

A window of ``num_steps`` steps sums rewards up to and including the first step that terminated or was truncated;
the observation after its last summed step is what a target bootstraps from. A window may also end before the first
action that its policy would not have chosen, as those of Watkins' Q(lambda) do (Sutton and Barto 2018, section 12.10):
what follows such an action says little of the value of the greedy policy.

Shapes: ``N`` environments, ``T`` steps of one chunk, ``M`` emitted transitions.
"""

from collections.abc import Mapping

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torch.nn.functional import pad

_FLAGS = ("terminated", "truncated", "done")
_Key = tuple[str, ...]


def n_step_returns(
    reward: Tensor, terminated: Tensor, truncated: Tensor, *, num_steps: int, discount: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Discounted sums of up to ``num_steps`` rewards, one for every step as the start of its window.

    Sutton and Barto 2018, section 7.1: ``G = sum_{k<m} gamma^k r_{t+k} + gamma^m V(s_{t+m})``. ``m`` is ``num_steps``,
    or less where an episode, or the data, end sooner.

    Args:
        reward: floating point, ``[..., T]``.
        terminated: bool, ``[..., T]``; the step ended its episode in a terminal state.
        truncated: bool, ``[..., T]``; the step was the last of its episode for another reason.
        num_steps: longest window, in steps, at least 1.
        discount: gamma, in [0, 1].

    Returns:
        The returns ``[..., T]``; the factor ``gamma^m`` of the value that follows, 0 where the window terminated,
        ``[..., T]``; and the index in [0, T) of each window's last step, whose next observation is bootstrapped from,
        int64, ``[..., T]``.

    Raises:
        TypeError: ``reward`` is not floating point, or flags are not bool.
        ValueError: shapes differ, or a number is out of its range.
    """
    _check_options(num_steps, discount)
    if not reward.is_floating_point():
        raise TypeError(f"reward must be floating point, got {reward.dtype}; convert it with reward.float()")
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if flag.dtype != torch.bool:
            raise TypeError(f"{name} must be bool, got {flag.dtype}; convert it with {name}.bool()")
    if not reward.shape == terminated.shape == truncated.shape or reward.ndim == 0:
        raise ValueError(
            "reward, terminated and truncated must share one shape [..., T], got "
            f"{tuple(reward.shape)}, {tuple(terminated.shape)} and {tuple(truncated.shape)}; squeeze trailing axes"
        )
    powers = reward.new_tensor([discount**k for k in range(num_steps + 1)])
    done = terminated | truncated
    done[..., -1:] = True  # the data end here, and so does every window
    reward_windows, done_windows = (pad(part, (0, num_steps - 1)).unfold(-1, num_steps, 1) for part in (reward, done))
    partial, steps = _sum_windows(reward_windows, done_windows, powers[:-1])
    last = torch.arange(reward.shape[-1], device=reward.device) + steps - 1
    return partial[..., -1], torch.where(terminated.gather(-1, last), 0.0, powers[steps]), last


def _sum_windows(reward: Tensor, done: Tensor, powers: Tensor) -> tuple[Tensor, Tensor]:
    """Discounted sums ``[..., num_steps]`` of the first rewards, and the number of steps ``[...]``, of windows.

    A window ends at the first step that is done; behind it the sum stays. The last one is the return.
    """
    inside = done.cumsum(-1) <= done  # no step before this one was done
    # selected, not multiplied: the reward of a step outside the window may be anything, NaN too
    return (torch.where(inside, reward, 0.0) * powers).cumsum(-1), inside.sum(-1)


class NStepWindow:
    """Turns consecutive chunks of rollout into multi-step transitions.

    The last ``num_steps - 1`` steps of a chunk wait for the next one, whose rewards their windows need. Transitions
    come out ordered by time, then environment, so that the stream does not depend on how it was cut into chunks.

    Args:
        num_steps: longest window, in steps, at least 1.
        discount: gamma, in [0, 1].
        cut_at_exploration: whether windows end before an action that was not greedy; that of a window's first step may
            be anything. ``steps_to_next_obs`` is that of the shorter window, and so is the discount.
        keep_partial_returns: whether transitions hold ``partial_returns`` ``[M, num_steps]``, the discounted sums of
            the first 1, 2, ... rewards of their window; behind its last step the sum stays.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(
        self,
        num_steps: int,
        discount: float,
        *,
        cut_at_exploration: bool = False,
        keep_partial_returns: bool = False,
    ) -> None:
        _check_options(num_steps, discount)
        self.num_steps, self.discount, self._cut = num_steps, discount, cut_at_exploration
        self._keeps_partial_returns = keep_partial_returns
        self._powers = [discount**k for k in range(num_steps)]
        self._keys: list[_Key] = []
        self._waiting: dict[_Key, Tensor] = {}  # time first: [up to num_steps - 1, N, ...]

    def extend(self, batch: TensorDictBase) -> TensorDictBase:
        """Add a chunk and return the transitions whose windows are complete.

        Args:
            batch: ``[N, T]``, the steps that follow those of the last call. Observations are the keys that stand both
                in the root and in ``next``. Needs ``action`` and, under ``next``, ``reward``, ``terminated``,
                ``truncated`` and ``done`` (each ``[N, T, 1]``). Where ``mask`` (``[N, T]``, bool) is false the step is
                no transition, such as the one that a NEXT_STEP environment spends on resetting, and no window starts
                there; such a step follows the end of an episode, so that no window crosses it either. With
                ``cut_at_exploration`` it needs ``greedy`` (``[N, T]``, bool), which the policy of `tesserl-iqn` writes.

        Returns:
            ``[M]``: observations and ``action`` of the first step; under ``next``, observations and flags of the
            last step and the summed ``reward``; ``steps_to_next_obs`` (``[M, 1]`` int64), the steps that were summed.
            With ``num_steps=1`` it may share memory with ``batch``: copy what must stay, as a replay buffer does.

        Raises:
            TypeError: the first batch is no TensorDict, its rewards are not floating point or its flags not bool.
            ValueError: a key is missing, a shape is another one in the first batch, or the number of environments is
                not that of the steps that wait.
        """
        columns = self._columns(batch)
        starts = max(len(columns["next", "reward"]) - self.num_steps + 1, 0)
        flat = {key: column[:starts].flatten(0, 1) for key, column in columns.items() if key[0] != "next"}
        if self.num_steps == 1:
            flat.update((key, column.flatten(0, 1)) for key, column in columns.items() if key[0] == "next")
            flat["steps_to_next_obs",] = torch.ones_like(flat["next", "done"], dtype=torch.int64)
            if self._keeps_partial_returns:
                flat["partial_returns",] = flat["next", "reward"].clone()
        else:
            flat.update(self._outcomes(columns, starts))
            self._waiting = {key: column[starts:] for key, column in columns.items()}
        flat.pop(("greedy",), None)
        mask = flat.pop(("mask",), None)
        if mask is not None and not mask.all():
            valid = mask.nonzero().squeeze(-1)
            flat = {key: column[valid] for key, column in flat.items()}
        return TensorDict(flat, flat["action",].shape[:1])

    def clear(self) -> None:
        """Forgets the steps that wait, for where the next chunk does not continue the last one."""
        self._waiting = {}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the waiting steps by key (the parts of a nested key joined by ``/``), each ``[steps, N, ...]``."""
        return {"/".join(key): column.clone() for key, column in self._waiting.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continues where ``state_dict`` was taken.

        Args:
            state: what ``state_dict`` returned, from a window of as many steps.

        Raises:
            ValueError: more steps wait than a window of ``num_steps`` leaves.
        """
        for name, column in state.items():
            if len(column) >= self.num_steps:
                raise ValueError(
                    f"{name}: expected at most {self.num_steps - 1} waiting steps, got {len(column)}; "
                    "load the state into a window of the num_steps it was saved with"
                )
        self._waiting = {tuple(name.split("/")): column.clone() for name, column in state.items()}
        self._keys = []  # those of the next chunk, which is compared with the steps that wait

    def _columns(self, batch: TensorDictBase) -> dict[_Key, Tensor]:
        """Join the waiting steps and those of the chunk, time first: ``[T, N, ...]`` by key."""
        if not self._keys:
            _check_batch(batch)
            self._keys = _transition_keys(batch, [("action",), *([("greedy",)] if self._cut else [])])
        columns = {key: batch.get(key).transpose(0, 1) for key in self._keys}
        if self._waiting:
            self._check_waiting(columns)
        if self.num_steps == 1:
            return columns
        if not self._waiting:
            return {key: column.clone() for key, column in columns.items()}
        expected, got = self._waiting["next", "reward"].shape[1], batch.batch_size[0]
        if expected != got:
            raise ValueError(f"batch must hold {expected} environments as before, got {got}; clear() starts anew")
        return {key: torch.cat([self._waiting[key], column]) for key, column in columns.items()}

    def _check_waiting(self, columns: dict[_Key, Tensor]) -> None:
        """Refuse a chunk that does not continue the steps that wait, such as those of another state."""
        waiting = {key: (column.shape[2:], column.dtype) for key, column in self._waiting.items()}
        given = {key: (column.shape[2:], column.dtype) for key, column in columns.items()}
        if waiting != given:
            differing = sorted("/".join(key) for key in {*waiting, *given} if waiting.get(key) != given.get(key))
            raise ValueError(
                f"batch must continue the steps that wait, they differ in {differing}; clear() starts anew"
            )

    def _outcomes(self, columns: dict[_Key, Tensor], starts: int) -> dict[_Key, Tensor]:
        """Return the ends of the first ``starts`` windows: all keys of ``next``, and ``steps_to_next_obs``."""
        reward = columns["next", "reward"].squeeze(-1)
        done = columns["next", "done"].squeeze(-1)
        num_envs = reward.shape[1]
        if self._cut:
            done = done.clone()
            done[:-1] |= ~columns["greedy",][1:]  # before such an action a window ends as it does at a last step
        if starts:
            reward, done = reward.unfold(0, self.num_steps, 1), done.unfold(0, self.num_steps, 1)
            partial, steps = _sum_windows(reward, done, reward.new_tensor(self._powers))
        else:
            partial, steps = reward.new_empty(0, num_envs, self.num_steps), done[:0].long()
        steps = steps.flatten()
        last = torch.arange(len(steps), device=steps.device) + (steps - 1) * num_envs
        following = {key: column.flatten(0, 1)[last] for key, column in columns.items() if key[0] == "next"}
        following["next", "reward"] = partial[..., -1].reshape(-1, 1)
        if self._keeps_partial_returns:
            following["partial_returns",] = partial.flatten(0, 1)
        following["steps_to_next_obs",] = steps.unsqueeze(-1)
        return following


def _transition_keys(batch: TensorDictBase, chosen: list[_Key]) -> list[_Key]:
    """Return a transition's keys: observations (in the root and ``next``), ``chosen``, mask, reward and flags."""
    keys = {(key,) if isinstance(key, str) else key for key in batch.keys(include_nested=True, leaves_only=True)}
    outcome: list[_Key] = [("next", name) for name in ("reward", *_FLAGS)]
    missing = [key for key in [*chosen, *outcome] if key not in keys]
    if missing:
        raise ValueError(f"batch must hold {[*chosen, *outcome]}; it lacks {missing}")
    observations = sorted(key for key in keys if ("next", *key) in keys and ("next", *key) not in outcome)
    if not observations:
        raise ValueError(
            f"batch must hold observations in the root and in next under the same keys, got {sorted(keys)}"
        )
    mask: list[_Key] = [("mask",)] if ("mask",) in keys else []
    return [*observations, *chosen, *mask, *(("next", *key) for key in observations), *outcome]


def _check_batch(batch: TensorDictBase) -> None:
    """Refuse shapes and types that would broadcast or be cut to integers without an error; run on the first batch."""
    if not isinstance(batch, TensorDictBase):
        raise TypeError(f"batch must be a TensorDict [N, T], got {type(batch).__name__}")
    if len(batch.batch_size) != 2:
        raise ValueError(
            f"batch must have the batch shape [N, T], got {list(batch.batch_size)}; environments, then time"
        )
    for name in ("reward", *_FLAGS):
        entry = batch.get(("next", name), None)
        if entry is None:  # another message lists what is missing
            continue
        if entry.shape != (*batch.batch_size, 1):
            raise ValueError(f"{name} must have the shape {(*batch.batch_size, 1)}, got {tuple(entry.shape)}")
        if name == "reward" and not entry.is_floating_point():
            raise TypeError(f"reward must be floating point, got {entry.dtype}; convert it with .float()")
        if name != "reward" and entry.dtype != torch.bool:
            raise TypeError(f"{name} must be bool, got {entry.dtype}; convert it with .bool()")


def _check_options(num_steps: int, discount: float) -> None:
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}; 1 is the ordinary one-step transition")
    if not 0.0 <= discount <= 1.0:
        raise ValueError(f"discount must be in [0, 1], got {discount}")
