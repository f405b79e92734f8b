"""From what was collected to what an on-policy loss reads: log-probabilities, values, advantages."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from tesserl_actor_critic import generalized_advantage_estimate
from tesserl_trainer.collecting.reward_scaling import RewardScaler
from tesserl_trainer.collecting.rollout_policy import RolloutPolicy, following_state


class Advantages:
    """Makes the batch of an on-policy loss out of a rollout with the records of the policy that acted.

    Args:
        policy: around the network whose rollouts they are; its `RolloutPolicy.records` are in each.
        keys: observation keys.
        discount: of one environment step, in [0, 1].
        gae_lambda: of the estimator, in [0, 1].
        scaler: scales the rewards; None leaves them.
        device: where the batch goes.
        chunk: steps that the critic evaluates at once.
    """

    def __init__(
        self,
        policy: RolloutPolicy,
        keys: Sequence[str],
        *,
        discount: float,
        gae_lambda: float,
        scaler: RewardScaler | None = None,
        device: torch.device | str = "cpu",
        chunk: int = 1024,
    ) -> None:
        self.policy, self.keys, self.scaler = policy, keys, scaler
        self.discount, self.gae_lambda = discount, gae_lambda
        self.device, self.chunk = torch.device(device), chunk

    @torch.no_grad()
    def __call__(self, rollout: TensorDictBase) -> TensorDictBase:
        """Compute the entries that the loss reads.

        Args:
            rollout: ``[N, T]``, from the collector. Nothing of it is changed, and nothing copied where it need not be.

        Returns:
            The observation keys, ``action``, ``action_log_prob``, ``state_value``, ``advantage`` and ``value_target``:
            ``[S]``, the valid steps alone. With a memory ``[N, T]``, with ``mask``, ``is_init`` and the state before
            each step.
        """
        network = self.policy.network
        inputs = [self._time_major(rollout[key]) for key in self.keys]
        action = self._time_major(rollout["action"])
        outputs = [self._time_major(rollout[key]) for key in network.parameter_keys]
        memory = ["is_init", *network.state_keys] if network.state_keys else []
        value = self._time_major(rollout["state_value"]) if self.policy.record_values else self._values(inputs)
        outcome = {name: self._time_major(rollout["next", name]) for name in ("reward", "terminated", "truncated")}
        if self.scaler is not None:
            reward = self.scaler(rollout["next", "reward"].squeeze(-1), rollout["next", "done"].squeeze(-1))
            outcome["reward"] = self._time_major(reward.unsqueeze(-1))
        next_value = self._next_values(rollout, value, outcome["terminated"], outcome["truncated"])
        advantage, target = generalized_advantage_estimate(
            **{name: tensor.transpose(0, 1) for name, tensor in outcome.items()},
            value=value.transpose(0, 1),
            next_value=next_value.transpose(0, 1),
            discount=self.discount,
            gae_lambda=self.gae_lambda,
        )
        data = {
            **dict(zip(self.keys, inputs, strict=True)),
            "action": action,
            "action_log_prob": network.distribution(*outputs).log_prob(action),
            "state_value": value,
            "advantage": advantage.transpose(0, 1),
            "value_target": target.transpose(0, 1),
        }
        mask = self._time_major(rollout["mask"])
        if memory:
            data |= {"mask": mask, **{key: self._time_major(rollout[key]) for key in memory}}
            return TensorDict(data, mask.shape).transpose(0, 1).contiguous()
        flat = TensorDict({key: tensor.flatten(0, 1) for key, tensor in data.items()}, [mask.numel()])
        return flat if bool(mask.all()) else flat[mask.flatten()]

    def _time_major(self, tensor: Tensor) -> Tensor:
        """``[N, T, ...]`` as ``[T, N, ...]``, which is how the collector's memory lies."""
        return tensor.transpose(0, 1).to(self.device, non_blocking=True)

    def _values(self, inputs: list[Tensor]) -> Tensor:
        """Return the critic's values ``[T, N, 1]`` of all steps, computed in chunks."""
        shape = inputs[0].shape[:2]
        chunks = zip(*(torch.split(tensor.flatten(0, 1), self.chunk) for tensor in inputs), strict=True)
        return torch.cat([self.policy.network.state_value(*chunk) for chunk in chunks]).reshape(*shape, 1)

    def _next_values(self, rollout: TensorDictBase, value: Tensor, terminated: Tensor, truncated: Tensor) -> Tensor:
        """Values ``[T, N, 1]`` of what each step led to: the next step's, or that of a final observation."""
        network = self.policy.network

        def evaluate(rows: list[Tensor], time: Tensor, env: Tensor) -> Tensor:
            if not network.state_keys:
                value: Tensor = network.state_value(*rows)
                return value
            keys = map(following_state, network.state_keys)
            after = [self._time_major(rollout[key])[time, env] for key in keys]
            is_init = torch.zeros(len(time), 1, dtype=torch.bool, device=self.device)
            outputs: tuple[Tensor, ...] = network.forward_recurrent(*rows, is_init, *after)
            return outputs[len(network.out_keys) - 1]

        return following_values(rollout, self.keys, value, terminated, truncated, evaluate)

    def state_dict(self) -> dict[str, Any]:
        """Return the statistics of the rewards, if they are scaled."""
        return {} if self.scaler is None else self.scaler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        if self.scaler is not None:
            self.scaler.load_state_dict(state)


def following_values(
    rollout: TensorDictBase,
    keys: Sequence[str],
    value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    evaluate: Callable[[list[Tensor], Tensor, Tensor], Tensor],
) -> Tensor:
    """Return values of the states that the steps of a rollout led to: of the next step, or a final observation.

    Args:
        rollout: ``[N, T]``, from the collector.
        keys: observation keys.
        value: what is known of the observation of each step, on the device, ``[T, N, ...]``.
        terminated: bool, ``[T, N, 1]``; what follows such a step is not evaluated.
        truncated: bool, ``[T, N, 1]``.
        evaluate: called with the observations that were not acted on, one tensor ``[S, ...]`` for each key, and with
            the times and the environments ``[S]`` of the steps that led to them; returns their values ``[S, ...]``.

    Returns:
        ``[T, N, ...]``, without meaning where terminated.
    """
    following = torch.cat([value[1:], value[-1:]])
    final = (truncated & ~terminated).squeeze(-1)
    final[-1] = True
    time, env = final.nonzero(as_tuple=True)
    rows = [rollout["next", key][env.cpu(), time.cpu()].to(value.device) for key in keys]
    following[time, env] = evaluate(rows, time, env)
    return following


def count_minibatches(size: int, number: int) -> int:
    """Return how many minibatches `minibatches` makes: fewer than asked for if there are too few elements."""
    return -(-size // -(-size // number)) if size else 0


def minibatches(data: TensorDictBase, number: int) -> Iterator[TensorDictBase]:
    """Shuffles a batch and splits it into parts of (almost) equal size.

    Args:
        data: the first dimension is shuffled and split.
        number: of parts.
    """
    if not data.shape[0]:
        return
    permutation = torch.randperm(data.shape[0], device=data.device)
    yield from data[permutation].split(-(-data.shape[0] // number))
