"""N-step returns that end where an episode ends.

A window of ``num_steps`` steps sums rewards up to and including the first step that terminated or was truncated; a
target bootstraps from the observation after this step. A window may also end before the first action that is not
greedy, as in Watkins' Q(lambda) (Sutton and Barto 2018, section 12.10), because rewards after such an action are not
those of the greedy policy.

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
    """Return discounted sums of up to ``num_steps`` rewards, for a window that starts at each step.

    Sutton and Barto 2018, section 7.1: ``G = sum_{k<m} gamma^k r_{t+k} + gamma^m V(s_{t+m})``. ``m`` is ``num_steps``,
    or less if the episode or the data end earlier.

    Args:
        reward: floating point, ``[..., T]``.
        terminated: bool, ``[..., T]``; the step ended its episode in a terminal state.
        truncated: bool, ``[..., T]``; the step was the last of its episode for another reason.
        num_steps: longest window, in steps, at least 1.
        discount: gamma, in [0, 1].

    Returns:
        Three tensors ``[..., T]``: the returns; the factor ``gamma^m`` of the bootstrapped value, 0 if the window
        terminated; and the index in [0, T) of each window's last step, int64. Bootstrap from the next observation of
        this last step.

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
    done[..., -1:] = True  # every window ends at the end of the data
    reward_windows, done_windows = (pad(part, (0, num_steps - 1)).unfold(-1, num_steps, 1) for part in (reward, done))
    partial, steps = _sum_windows(reward_windows, done_windows, powers[:-1])
    last = torch.arange(reward.shape[-1], device=reward.device) + steps - 1
    return partial[..., -1], torch.where(terminated.gather(-1, last), 0.0, powers[steps]), last


def _sum_windows(reward: Tensor, done: Tensor, powers: Tensor) -> tuple[Tensor, Tensor]:
    """Return the discounted sums ``[..., num_steps]`` of the first 1, 2, ... rewards of windows, and their lengths.

    A window ends at the first step that is done; after it the sums stay constant. The last sum is the return.
    """
    inside = done.cumsum(-1) <= done  # true if no earlier step was done
    # torch.where, not a product: rewards outside of the window may be NaN
    return (torch.where(inside, reward, 0.0) * powers).cumsum(-1), inside.sum(-1)


class NStepWindow:
    """Convert consecutive chunks of rollouts to n-step transitions.

    The last ``num_steps - 1`` steps of a chunk wait for the next chunk, because their windows need its rewards.
    Transitions are ordered by time, then environment, so they do not depend on the lengths of the chunks.

    Args:
        num_steps: longest window, in steps, at least 1.
        discount: gamma, in [0, 1].
        cut_at_exploration: whether windows end before an action that was not greedy, except the first action of a
            window. ``steps_to_next_obs`` and the discount are then those of the shorter window.
        keep_partial_returns: whether transitions contain ``partial_returns`` ``[M, num_steps]``: the discounted sums of
            the first 1, 2, ... rewards of their window, constant after its last step.

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
            batch: ``[N, T]``, the steps that follow those of the last call. It needs ``action`` and, under ``next``,
                ``reward``, ``terminated``, ``truncated`` and ``done`` (each ``[N, T, 1]``). Observations are the keys
                that are both at the root and under ``next``. No window starts where the optional ``mask`` (``[N, T]``,
                bool) is false: these steps are no transitions, such as the reset step of a NEXT_STEP environment. They
                must follow the end of an episode, so that no window crosses them. With ``cut_at_exploration`` the batch
                needs ``greedy`` (``[N, T]``, bool), which the policy of `tesserl-iqn` writes.

        Returns:
            ``[M]``: observations and ``action`` of the first step; under ``next``, observations and flags of the last
            step and the summed ``reward``; ``steps_to_next_obs`` (``[M, 1]`` int64), the number of summed steps. With
            ``num_steps=1`` it may share memory with ``batch``; copy what you keep, as a replay buffer does.

        Raises:
            TypeError: the first batch is not a TensorDict, its rewards are not floating point, or its flags are not
                bool.
            ValueError: a key is missing, the first batch has a wrong shape, or the number of environments differs from
                that of the waiting steps.
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
        """Drop the waiting steps; call it if the next chunk does not continue the last one."""
        self._waiting = {}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the waiting steps by key (the parts of a nested key joined by ``/``), each ``[steps, N, ...]``."""
        return {"/".join(key): column.clone() for key, column in self._waiting.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the waiting steps.

        Args:
            state: result of ``state_dict`` of a window with the same ``num_steps``.

        Raises:
            ValueError: there are more than ``num_steps - 1`` waiting steps.
        """
        for name, column in state.items():
            if len(column) >= self.num_steps:
                raise ValueError(
                    f"{name}: expected at most {self.num_steps - 1} waiting steps, got {len(column)}; "
                    "load the state into a window of the num_steps it was saved with"
                )
        self._waiting = {tuple(name.split("/")): column.clone() for name, column in state.items()}
        self._keys = []  # taken from the next chunk, which is then compared with the waiting steps

    def _columns(self, batch: TensorDictBase) -> dict[_Key, Tensor]:
        """Concatenate the waiting steps and the chunk, time first: ``[T, N, ...]`` by key."""
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
        """Reject a chunk that does not fit the waiting steps, for example those of a loaded state."""
        waiting = {key: (column.shape[2:], column.dtype) for key, column in self._waiting.items()}
        given = {key: (column.shape[2:], column.dtype) for key, column in columns.items()}
        if waiting != given:
            differing = sorted("/".join(key) for key in {*waiting, *given} if waiting.get(key) != given.get(key))
            raise ValueError(
                f"batch must continue the steps that wait, they differ in {differing}; clear() starts anew"
            )

    def _outcomes(self, columns: dict[_Key, Tensor], starts: int) -> dict[_Key, Tensor]:
        """Return the last steps of the first ``starts`` windows: all keys of ``next``, and ``steps_to_next_obs``."""
        reward = columns["next", "reward"].squeeze(-1)
        done = columns["next", "done"].squeeze(-1)
        num_envs = reward.shape[1]
        if self._cut:
            done = done.clone()
            done[:-1] |= ~columns["greedy",][1:]  # end windows before actions that are not greedy
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
    """Reject shapes and dtypes that would silently broadcast or be truncated to integers; run on the first batch."""
    if not isinstance(batch, TensorDictBase):
        raise TypeError(f"batch must be a TensorDict [N, T], got {type(batch).__name__}")
    if len(batch.batch_size) != 2:
        raise ValueError(
            f"batch must have the batch shape [N, T], got {list(batch.batch_size)}; environments, then time"
        )
    for name in ("reward", *_FLAGS):
        entry = batch.get(("next", name), None)
        if entry is None:  # missing keys are reported elsewhere
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
