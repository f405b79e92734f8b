"""Turn collected rollouts into the batch of an on-policy loss: log-probabilities, values, advantages."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from torch import Tensor

from tesserl_actor_critic import generalized_advantage_estimate
from tesserl_collectors.rollout_policy import RolloutPolicy, following_state
from tesserl_collectors.transfers import Uploads
from tesserl_training.reward_scaling import RewardScaler

OUTCOME = ("reward", "terminated", "truncated")

Upload = Callable[[Mapping[NestedKey, Tensor]], dict[NestedKey, Tensor]]
"""Copies tensors to the device of a learner."""


def upload_to(device: torch.device | str) -> Upload:
    """Return a function that copies the tensors of rollouts to a device without waiting for the copy."""
    return Uploads(device)


class Advantages:
    """Makes the batch of an on-policy loss from a rollout that holds the acting policy's records.

    Args:
        policy: policy that collected the rollouts; each rollout holds its `RolloutPolicy.records`.
        keys: observation keys.
        discount: discount of one environment step, in [0, 1].
        gae_lambda: lambda of generalised advantage estimation, in [0, 1].
        scaler: scales the rewards; None leaves them.
        device: device of the batch.
        chunk: number of steps that the critic evaluates at once.
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
        self._upload = Uploads(device)

    @torch.no_grad()
    def __call__(self, rollout: TensorDictBase) -> TensorDictBase:
        """Compute the entries that the loss reads.

        Args:
            rollout: ``[N, T]``, from the collector; it is not changed.

        Returns:
            The observation keys, ``action``, ``action_log_prob``, ``state_value``, ``advantage`` and ``value_target``:
            ``[S]``, only the valid steps. For a policy with memory ``[N, T]``, with ``is_init`` and the state before
            each step, and with ``mask`` if some steps are invalid.
        """
        network, scaler = self.policy.network, self.scaler
        memory = ["is_init", *network.state_keys] if network.state_keys else []
        values = ["state_value"] if self.policy.record_values else []
        recorded = [*self.keys, "action", *network.parameter_keys, *values, *memory]
        outcome = {name: rollout["next", name] for name in OUTCOME}
        if scaler is not None:
            reward = scaler(outcome["reward"].squeeze(-1), rollout["next", "done"].squeeze(-1))
            outcome["reward"] = reward.unsqueeze(-1)
        steps = self._time_major({**{key: rollout[key] for key in recorded}, **outcome})
        inputs = [steps[key] for key in self.keys]
        value = steps["state_value"] if values else self._values(inputs)
        next_value = self._next_values(rollout, value)
        advantage, target = generalized_advantage_estimate(
            **{name: steps[name].transpose(0, 1) for name in OUTCOME},
            value=value.transpose(0, 1),
            next_value=next_value.transpose(0, 1),
            discount=self.discount,
            gae_lambda=self.gae_lambda,
        )
        outputs = [steps[key] for key in network.parameter_keys]
        data = {
            **dict(zip(self.keys, inputs, strict=True)),
            "action": steps["action"],
            "action_log_prob": network.distribution(*outputs).log_prob(steps["action"]),
            "state_value": value,
            "advantage": advantage.transpose(0, 1),
            "value_target": target.transpose(0, 1),
        }
        if memory:
            return self._sequences({**data, **{key: steps[key] for key in memory}}, rollout["mask"])
        return valid_steps(data, rollout["mask"], self._upload)

    def _sequences(self, data: dict[NestedKey, Tensor], mask: Tensor) -> TensorDictBase:
        """Return entries ``[T, N, ...]`` as a batch ``[N, T]``, without environments that have no valid step.

        The batch has a mask if some steps are invalid.
        """
        if not bool(mask.all()):  # without a mask, losses need not wait for a GPU to count valid steps
            data["mask"] = self._time_major({"mask": mask})["mask"]
        advantage = data["advantage"]
        batch = TensorDict(data, advantage.shape[:2], device=advantage.device).transpose(0, 1).contiguous()
        took_part = mask.any(dim=1)
        return batch if bool(took_part.all()) else batch[self._rows(took_part)]

    def _rows(self, chosen: Tensor) -> Tensor:
        return self._upload({"rows": chosen.nonzero().squeeze(-1)})["rows"]

    def _time_major(self, entries: Mapping[NestedKey, Tensor]) -> dict[NestedKey, Tensor]:
        """Return entries ``[N, T, ...]`` as ``[T, N, ...]``, the memory layout of the collector."""
        return self._upload({key: entry.transpose(0, 1) for key, entry in entries.items()})

    def _values(self, inputs: list[Tensor]) -> Tensor:
        """Return the critic's values ``[T, N, 1]`` of all steps, computed in chunks."""
        shape = inputs[0].shape[:2]
        chunks = zip(*(torch.split(tensor.flatten(0, 1), self.chunk) for tensor in inputs), strict=True)
        return torch.cat([self.policy.network.state_value(*chunk) for chunk in chunks]).reshape(*shape, 1)

    def _next_values(self, rollout: TensorDictBase, value: Tensor) -> Tensor:
        """Return the values ``[T, N, 1]`` of the states after each step: the next step's or a final observation's."""
        network = self.policy.network

        def evaluate(rows: list[Tensor], time: Tensor, env: Tensor) -> Tensor:
            if not network.state_keys:
                value: Tensor = network.state_value(*rows)
                return value
            keys = map(following_state, network.state_keys)
            after = [state[time, env] for state in self._time_major({key: rollout[key] for key in keys}).values()]
            is_init = torch.zeros(len(time), 1, dtype=torch.bool, device=self.device)
            outputs: tuple[Tensor, ...] = network.forward_recurrent(*rows, is_init, *after)
            return outputs[len(network.out_keys) - 1]

        return following_values(rollout, self.keys, value, evaluate, self._upload)

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
    evaluate: Callable[[list[Tensor], Tensor, Tensor], Tensor],
    upload: Upload,
) -> Tensor:
    """Return the values of the states after each step of a rollout: the next step's or a final observation's.

    Args:
        rollout: ``[N, T]``, from the collector, on the CPU; a state after a terminated step is not evaluated.
        keys: observation keys.
        value: values of the observations of the steps, on the device, ``[T, N, ...]``.
        evaluate: called with the observations without an action, one tensor ``[S, ...]`` per key, and with the times
            and environments ``[S]`` of the steps before them; returns their values ``[S, ...]``.
        upload: copies a tensor to the device, see `upload_to`.

    Returns:
        ``[T, N, ...]``; undefined at terminated steps.
    """
    following = torch.cat([value[1:], value[-1:]])
    truncated, terminated = (rollout["next", name].squeeze(-1).transpose(0, 1) for name in ("truncated", "terminated"))
    final = truncated & ~terminated  # [T, N]
    final[-1] = True
    time, env = final.nonzero(as_tuple=True)
    rows = upload({**{key: rollout["next", key][env, time] for key in keys}, "time": time, "env": env})
    time, env = rows["time"], rows["env"]
    following[time, env] = evaluate([rows[key] for key in keys], time, env)
    return following


def valid_steps(
    data: Mapping[NestedKey, Tensor],
    mask: Tensor,
    upload: Upload,
) -> TensorDictBase:
    """Return the valid steps of a rollout as a flat batch.

    Args:
        data: entries on the device, ``[T, N, ...]``.
        mask: true on valid steps, bool ``[N, T]``, on the CPU, so that reading it waits for no GPU.
        upload: see `following_values`.

    Returns:
        ``[S]``, in the order of time.
    """
    flat = {key: tensor.flatten(0, 1) for key, tensor in data.items()}
    device = next(iter(flat.values())).device
    batch = TensorDict(flat, [mask.numel()], device=device)
    if bool(mask.all()):
        return batch
    return batch[upload({"rows": mask.transpose(0, 1).flatten().nonzero().squeeze(-1)})["rows"]]
