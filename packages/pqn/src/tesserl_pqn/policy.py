"""Act on a Q-network: choose the best action, or with probability epsilon a random one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from tesserl_policy import mask_actions
from tesserl_pqn.network import QNetwork


class EpsilonGreedy:
    """Choose the best action of a Q-network, or with probability ``epsilon`` a uniformly random one.

    With ``record`` it keeps the outputs of the network at each step, so that targets can use them without another pass.

    Args:
        network: the network.
        epsilon: probability of a random action, in [0, 1]; assign it at any time.
        evaluation_epsilon: probability of a random action in `greedy`, in [0, 1].
        seed: seed of the random actions in `greedy`, which are the same at each use.
        record: whether to keep outputs until `pop`.

    Raises:
        ValueError: a probability is out of its range.
    """

    def __init__(
        self,
        network: QNetwork,
        *,
        epsilon: float = 0.0,
        evaluation_epsilon: float = 0.0,
        seed: int = 0,
        record: bool = False,
    ) -> None:
        for name, value in (("epsilon", epsilon), ("evaluation_epsilon", evaluation_epsilon)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {value}; it is the probability of a random action")
        self.network = network
        self.epsilon, self.evaluation_epsilon, self.seed, self.record = epsilon, evaluation_epsilon, seed, record
        self._outputs: list[Tensor] = []
        self._generator: torch.Generator | None = None  # None: torch's global one

    @torch.no_grad()
    def act(self, *inputs: Tensor) -> Tensor:
        """Choose actions.

        Args:
            *inputs: ``[N, ...]`` each, in the order of the network's ``in_keys``, and then the mask of actions if there
                is one, bool ``[N, A]``; forbidden actions are never chosen, not even at random.

        Returns:
            Categories, int64, ``[N]``.
        """
        outputs = self.network(*inputs)
        if self.record:
            self._outputs.append(outputs)
        action = self.network.expectation(outputs).argmax(dim=-1)
        if self.epsilon == 0:
            return action
        generator, device = self._generator, action.device
        draw = torch.rand(action.shape, generator=generator, device=device)
        if len(inputs) == len(self.network.in_keys):
            uniform = torch.randint(self.network.num_actions, action.shape, generator=generator, device=device)
        else:
            mask = inputs[-1]
            uniform = mask_actions(torch.rand(mask.shape, generator=generator, device=device), mask).argmax(dim=-1)
        return torch.where(draw < self.epsilon, uniform, action)

    def pop(self) -> Tensor:
        """Return the outputs recorded since the last call, ``[T, N, A]`` or ``[T, N, K, A]``, and forget them.

        Raises:
            RuntimeError: no output was recorded.
        """
        if not self._outputs:
            raise RuntimeError("no output was kept; make the policy with record=True, and act first")
        outputs, self._outputs = torch.stack(self._outputs), []
        return outputs

    @contextmanager
    def greedy(self) -> Iterator[EpsilonGreedy]:
        """Yield a policy that explores with ``evaluation_epsilon``, and keep the network in evaluation mode meanwhile.

        Its random actions come from a separate generator, so torch's global one does not change.
        """
        policy = EpsilonGreedy(self.network, epsilon=self.evaluation_epsilon)
        if self.evaluation_epsilon > 0:
            device = next(self.network.parameters()).device
            policy._generator = torch.Generator(device).manual_seed(self.seed)
        modes = [(module, module.training) for module in self.network.modules()]
        self.network.eval()
        try:
            yield policy
        finally:
            for module, mode in modes:
                module.training = mode
