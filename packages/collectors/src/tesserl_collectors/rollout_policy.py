"""Act with an actor-critic network, and record its outputs for the learner."""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ParamSpec

import torch
from numpy.typing import NDArray
from tensordict import NestedKey
from torch import Tensor, nn

from tesserl_collectors.transfers import Uploads

Arguments = ParamSpec("Arguments")


def without_gradient(act: Callable[Arguments, Tensor]) -> Callable[Arguments, Tensor]:
    """Wrap a function to run without gradients, faster than ``torch.no_grad()``: 10 % of acting in 8 environments."""

    @functools.wraps(act)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Tensor:
        if not torch.is_grad_enabled():
            return act(*args, **kwargs)
        with torch.no_grad():
            return act(*args, **kwargs)

    return wrapped


def following_state(key: NestedKey) -> NestedKey:
    """Return the key of a recurrent state after a step, given the key of the state before it."""
    return ("next", *((key,) if isinstance(key, str) else key))


class RolloutPolicy:
    """Sample actions, and record the outputs of the network at every step until ``pop``.

    Args:
        network: an ``ActorCritic``, or an object with the same methods.
        record_values: also record the critic's values; efficient if actor and critic share a body, because one pass
            then computes both.
    """

    def __init__(self, network: Any, *, record_values: bool = True) -> None:
        self.network = network
        self.memory = _Memory(network.body) if network.state_keys else None
        self.record_values = record_values or self.memory is not None
        self._records: list[tuple[Tensor, ...]] = []

    @without_gradient
    def act(self, *inputs: Tensor) -> Tensor:
        """Sample actions.

        Args:
            *inputs: one tensor ``[N, ...]`` per observation key of the network.

        Returns:
            Actions ``[N, ...]``.
        """
        network = self.network
        if self.memory is not None:
            is_init, before = self.memory.read(inputs[0])
            outputs, after = self.memory.split(network.forward_recurrent(*inputs, is_init, *before))
            self.memory.write(after)
            self._records.append((*outputs, is_init, *before, *after))
        else:
            outputs = network(*inputs) if self.record_values else network.policy_parameters(*inputs)
            self._records.append(outputs)
        parameters = outputs[:-1] if self.record_values else outputs
        return network.draw(*parameters)

    def start(self, started: NDArray[Any]) -> None:
        """Mark the environments that begin an episode, by flags ``[N]``."""
        if self.memory is not None:
            self.memory.start(started)

    def pop(self) -> list[Tensor]:
        """Return one recorded tensor ``[T, N, ...]`` per output, in the order of the network's ``out_keys``.

        Values are omitted if they are not recorded. With a recurrent network, ``is_init``, the states before and the
        states after each step follow.
        """
        records, self._records = self._records, []
        return [torch.stack(steps) for steps in zip(*records, strict=True)]

    def records(self) -> dict[NestedKey, Tensor]:
        """Return the records as entries ``[N, T, ...]`` of a rollout.

        They are the network's ``out_keys``, without ``state_value`` if values are not recorded. A recurrent network
        adds ``is_init``, the states before each step, and the states after it under ``next``.
        """
        network = self.network
        keys: list[NestedKey] = list(network.out_keys if self.record_values else network.parameter_keys)
        if self.memory is not None:
            keys += ["is_init", *network.state_keys, *map(following_state, network.state_keys)]
        return {key: record.transpose(0, 1) for key, record in zip(keys, self.pop(), strict=True)}

    @contextmanager
    def greedy(self) -> Iterator["GreedyPolicy"]:
        """Yield a policy that takes the most probable action; within the context the network is in evaluation mode."""
        modes = [(module, module.training) for module in self.network.modules()]
        self.network.eval()
        try:
            yield GreedyPolicy(self.network)
        finally:
            for module, mode in modes:
                module.training = mode

    def state_dict(self) -> dict[str, Any]:
        """Return the recurrent state between two calls of ``act``."""
        return {} if self.memory is None else self.memory.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        if self.memory is not None:
            self.memory.load_state_dict(state)


class GreedyPolicy:
    """Take the most probable action of an actor-critic network."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.memory = _Memory(network.body) if network.state_keys else None

    @without_gradient
    def act(self, *inputs: Tensor) -> Tensor:
        """Choose actions ``[N, ...]`` for inputs ``[N, ...]``."""
        if self.memory is None:
            return self.network.greedy(*inputs)
        is_init, state = self.memory.read(inputs[0])
        outputs, after = self.memory.split(self.network.forward_recurrent(*inputs, is_init, *state))
        self.memory.write(after)
        return self.network.distribution(*outputs[:-1]).mode

    def start(self, started: NDArray[Any]) -> None:
        """Mark the environments that begin an episode, by flags ``[N]``."""
        if self.memory is not None:
            self.memory.start(started)


class _Memory:
    """The recurrent state of every environment, and the flags of those that begin an episode."""

    def __init__(self, body: nn.Module) -> None:
        self._body: Any = body
        self._state: tuple[Tensor, ...] | None = None
        self._is_init: Tensor | None = None
        self._upload: Uploads | None = None  # made when ``read`` knows the device

    def read(self, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return ``is_init`` ``[N, 1]`` and the state before this step, initially zero."""
        if self._state is None:
            self._state = self._body.initial_state(inputs.shape[0], device=inputs.device)
        if self._is_init is None:
            self._is_init = torch.ones(inputs.shape[0], 1, dtype=torch.bool, device=inputs.device)
        if self._is_init.device != inputs.device:  # loaded from a checkpoint
            self._is_init = self._is_init.to(inputs.device)
            self._state = tuple(part.to(inputs.device) for part in self._state)
        return self._is_init, self._state

    def split(self, outputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Split outputs into those of the heads and the new recurrent state."""
        number = len(self._body.state_keys)
        return outputs[:-number], outputs[-number:]

    def write(self, state: tuple[Tensor, ...]) -> None:
        """Store the state after a step; ``start`` marks where episodes begin."""
        self._state = state
        self._is_init = torch.zeros_like(self.is_init)

    @property
    def is_init(self) -> Tensor:
        if self._is_init is None:
            raise RuntimeError("the memory has not been read yet; act first")
        return self._is_init

    def start(self, started: NDArray[Any]) -> None:
        if self._is_init is not None:
            if self._upload is None:
                self._upload = Uploads(self._is_init.device)
            mask = self._upload({"started": torch.from_numpy(started).unsqueeze(1)})["started"]
            self._is_init = self._is_init | mask

    def state_dict(self) -> dict[str, Any]:
        if self._state is None:
            return {}
        return {"state": list(self._state), "is_init": self.is_init}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        if saved:
            self._state, self._is_init = tuple(saved["state"]), saved["is_init"]
