"""Choose actions from the quantiles of a network: risk, greedy choice and exploration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from tensordict import NestedKey, TensorDictBase
from tensordict.nn import InteractionType, TensorDictModule, TensorDictModuleBase
from tensordict.nn.probabilistic import interaction_type
from torch import Tensor
from torch.nn import functional

from tesserl_iqn.fractions import RiskKind, TauSampling, check_risk, check_tau_sampling, distort_taus, sample_taus
from tesserl_iqn.network import QuantileNetwork, dropout_layers, spectral_layers, unwrap_network
from tesserl_nn_components import NoisyLinear
from tesserl_policy import mask_actions


class QuantilePolicy(TensorDictModuleBase):
    """Choose actions by the mean of a network's quantiles, with exploration that can be set at each step.

    Exploration has three kinds, which can be combined: noise drawn anew at each call (NoisyNets, Fortunato et al.
    2018), Boltzmann (``softmax(action_value / temperature)``, as M-IQN acts), and last epsilon-greedy. With action
    blocks each block explores separately, or all at once (``explore_per_block``). Assign the attributes ``epsilon`` and
    ``temperature`` at any time.

    `act` takes and returns plain tensors. Called as a module, the policy reads a TensorDict and writes ``action_value``
    ``[*B, (N,) A]``, ``action`` and ``chosen_action_value`` ``[*B, 1]`` (the mean over blocks), for torchrl's
    collectors. Under ``set_exploration_type(ExplorationType.DETERMINISTIC)`` it acts as in `greedy`. No gradients are
    recorded.

    A mask restricts all choices to allowed actions, also random ones. `act` takes it as one more input, a TensorDict
    holds it as ``action_mask``: bool, true for allowed actions, in the shape of the values ``[*B, (N,) A]``.

    With ``mark_greedy`` each call stores in ``last_greedy`` (``[*B]``, bool) whether the action was the best in all its
    blocks, even if it was drawn at random. A TensorDict gets it as ``greedy``. `tesserl_replay.NStepWindow` can end its
    windows before actions that are not greedy.

    Spectral norms make no power iterations here, and dropout is off, also in training mode. This holds for the layers
    that the network has when the policy is built.

    Evaluate inside ``with policy.greedy():``, which restores the training state on exit, or with a policy around a
    copy of the network.

    Args:
        network: a `QuantileNetwork`, or a TensorDictModule around one whose last key is that of the taus. If it has
            fixed fractions, ``num_taus`` and ``tau_sampling`` have no effect.
        num_taus: fractions whose mean is the action value, at least 1; one row for all observations of a call.
        tau_sampling: how the fractions are drawn, see `sample_taus`.
        risk: distortion of the fractions and its strength, such as ``("cvar", 0.1)``, see `distort_taus`; None is
            neutral.
        greedy_risk: whether `greedy` distorts fractions too; False makes the risk a part of exploration.
        epsilon: probability of a uniformly random action, in [0, 1]; a number or one for each observation, ``[*B]``.
        temperature: Boltzmann temperature, in reward units, at least 0; 0 chooses the best action.
        redraw_noise: whether each call draws new noise in noisy layers, one draw for the whole batch.
        explore_per_block: decide for each action block whether epsilon makes it random; False decides once for all
            blocks of an observation.
        mark_greedy: record which actions were greedy.
        action_space: format of actions in a TensorDict: ``"categorical"`` ``[*B]`` or ``[*B, N]``, or
            ``"one_hot"`` ``[*B, A]`` or ``[*B, N * A]``. `act` returns categories.
        generator: source of all random numbers; default: torch's global one.

    Raises:
        TypeError: ``network`` is neither of the two.
        ValueError: an option is out of its range.
    """

    def __init__(
        self,
        network: QuantileNetwork | TensorDictModule,
        *,
        num_taus: int = 32,
        tau_sampling: TauSampling = "uniform",
        risk: tuple[RiskKind, float] | None = None,
        greedy_risk: bool = True,
        epsilon: float | Tensor = 0.0,
        temperature: float = 0.0,
        redraw_noise: bool = True,
        explore_per_block: bool = True,
        mark_greedy: bool = False,
        action_space: Literal["categorical", "one_hot"] = "categorical",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_tau_sampling(tau_sampling, num_taus)
        if risk is not None:
            check_risk(*risk)
        _check_exploration(epsilon, temperature)
        if action_space not in ("categorical", "one_hot"):
            raise ValueError(f"action_space must be categorical or one_hot, got {action_space!r}")
        self.network, observation_keys = unwrap_network(network)
        self.in_keys: list[NestedKey] = observation_keys
        self.out_keys: list[NestedKey] = ["action_value", "action", "chosen_action_value"]
        self.out_keys += ["greedy"] if mark_greedy else []
        self.num_taus = num_taus
        self.tau_sampling: TauSampling = tau_sampling
        self.risk = risk
        self.greedy_risk = greedy_risk
        self.epsilon = epsilon
        self.temperature = temperature
        self.redraw_noise = redraw_noise
        self.explore_per_block = explore_per_block
        self.mark_greedy = mark_greedy
        self.last_greedy: Tensor | None = None
        self.action_space = action_space
        self.generator = generator
        self._learning_layers = (*spectral_layers(self.network), *dropout_layers(self.network))

    @torch.no_grad()
    def act(self, *inputs: Tensor) -> Tensor:
        """Choose actions, without TensorDict.

        Args:
            *inputs: the body's inputs in the order of its ``in_keys``, and the mask of actions if there is one.

        Returns:
            Categories, int64, ``[*B]`` or ``[*B, N]`` with blocks.

        Raises:
            TypeError: an input is no tensor.
            ValueError: ``epsilon`` or ``temperature`` is out of its range.
        """
        mask = None
        if len(inputs) == len(self.in_keys) + 1:
            *inputs, mask = inputs  # type: ignore[assignment]
        try:
            return self._choose(self._redraw_and_evaluate(*inputs), mask)
        except (AttributeError, TypeError) as error:
            self._explain_inputs(inputs, error)
            raise

    @torch.no_grad()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Choose actions for a TensorDict and write them into it.

        Args:
            tensordict: holds the observations.

        Returns:
            The same TensorDict.

        Raises:
            ValueError: ``epsilon`` or ``temperature`` is out of its range.
        """
        if not hasattr(tensordict, "set"):
            raise TypeError(f"a batch must be a TensorDict, got {type(tensordict).__name__}; or call act(*tensors)")
        explores = interaction_type() in (None, InteractionType.RANDOM)  # torchrl names it exploration type
        with nullcontext() if explores else self.greedy():
            value = self._redraw_and_evaluate(*(tensordict.get(key) for key in self.in_keys))
            action = self._choose(value, tensordict.get("action_mask", None))
        chosen_value = value.gather(-1, action.unsqueeze(-1))
        if self.network.num_blocks is not None:
            chosen_value = chosen_value.mean(dim=-2)
        if self.action_space == "one_hot":
            action = functional.one_hot(action, self.network.num_actions)
            action = action if self.network.num_blocks is None else action.flatten(-2)
        tensordict.set("action_value", value)
        tensordict.set("action", action)
        tensordict.set("chosen_action_value", chosen_value)
        if self.mark_greedy:
            tensordict.set("greedy", self.last_greedy)
        return tensordict

    def action_value(self, *inputs: Tensor) -> Tensor:
        """Return the mean over (distorted) fractions, with the current noise.

        Args:
            *inputs: the body's inputs in the order of its ``in_keys``.

        Returns:
            Value of every action, in reward units, ``[*B, A]`` or ``[*B, N, A]`` with blocks.
        """
        features, fixed = self.network.features(*inputs), self.network.num_fixed_quantiles
        taus = sample_taus(
            (),
            self.num_taus if fixed is None else fixed,
            kind=self.tau_sampling if fixed is None else "midpoints",
            generator=self.generator,
            device=features.device,
            dtype=torch.float32,
        )
        if self.risk is not None:
            taus = distort_taus(taus, *self.risk)
        return self.network.action_value(features, taus)

    @contextmanager
    def greedy(self) -> Iterator[QuantilePolicy]:
        """Act without exploration inside the block, and restore everything on exit.

        Inside, epsilon and temperature are 0, fractions are midpoints (so actions are deterministic and no random
        number is drawn), not distorted unless ``greedy_risk``, noise is zero and the network is in evaluation mode. On
        exit all of it, the noise included, is restored.

        Yields:
            This policy.
        """
        names = ("epsilon", "temperature", "redraw_noise", "tau_sampling", "risk")
        settings = {name: getattr(self, name) for name in names}
        modes = [(module, module.training) for module in self.network.modules()]
        layers = [module for module, _ in modes if isinstance(module, NoisyLinear)]
        noise = [(buffer, buffer.clone()) for layer in layers for buffer in layer.buffers(recurse=False)]
        self.epsilon, self.temperature, self.redraw_noise, self.tau_sampling = 0.0, 0.0, False, "midpoints"
        self.risk = self.risk if self.greedy_risk else None
        self.network.zero_noise()
        self.network.eval()
        try:
            yield self
        finally:
            for name, setting in settings.items():
                setattr(self, name, setting)
            for module, mode in modes:
                module.training = mode
            for buffer, values in noise:
                buffer.copy_(values)

    def _redraw_and_evaluate(self, *inputs: Tensor) -> Tensor:
        if self.redraw_noise:
            self.network.reset_noise(self.generator)
        modes = [layer.training for layer in self._learning_layers]
        for layer in self._learning_layers:
            layer.training = False
        try:
            return self.action_value(*inputs)
        finally:
            for layer, mode in zip(self._learning_layers, modes, strict=True):
                layer.training = mode

    def _explain_inputs(self, inputs: Sequence[Any], error: Exception) -> None:
        """Raise an error that names the wrong input of `act`, if there is one."""
        keys = list(self.in_keys)
        if len(inputs) != len(keys):
            raise TypeError(f"act needs one tensor for each of {keys}, got {len(inputs)}") from error
        for key, entry in zip(keys, inputs, strict=True):
            if not isinstance(entry, Tensor):
                raise TypeError(
                    f"{key} must be a tensor, got {type(entry).__name__}; convert it with torch.as_tensor"
                ) from error

    def _choose(self, value: Tensor, mask: Tensor | None) -> Tensor:
        """Return categories for values ``[*B, (N,) A]``; store which are greedy if asked to."""
        if self.temperature < 0:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}; 0 chooses the best action")
        action = self._explore(value, mask)
        if self.mark_greedy:
            greedy = action == _best(value, mask)
            self.last_greedy = greedy if self.network.num_blocks is None else greedy.all(dim=-1)
        return action

    def _explore(self, value: Tensor, mask: Tensor | None) -> Tensor:
        if self.temperature > 0:
            # the largest of logits plus Gumbel noise is a draw from their softmax; -log of an exponential is Gumbel
            exponential = torch.empty_like(value).exponential_(generator=self.generator)
            value = value / self.temperature - exponential.log()
        action = _best(value, mask)
        epsilon = self.epsilon
        if isinstance(epsilon, Tensor):
            epsilon = epsilon.reshape(epsilon.shape + (1,) * (action.dim() - epsilon.dim()))
        elif epsilon == 0:
            return action
        elif not 0 < epsilon <= 1:
            raise ValueError(f"epsilon must be in [0, 1], got {epsilon}")
        one_coin = self.network.num_blocks is not None and not self.explore_per_block
        coins = (*action.shape[:-1], 1) if one_coin else action.shape
        draw = torch.rand(coins, generator=self.generator, device=action.device)
        if mask is None:
            actions = self.network.num_actions
            uniform = torch.randint(actions, action.shape, generator=self.generator, device=action.device)
        else:
            uniform = _best(torch.rand(mask.shape, generator=self.generator, device=mask.device), mask)
        return torch.where(draw < epsilon, uniform, action)


def _best(value: Tensor, mask: Tensor | None) -> Tensor:
    """Return the allowed action with the largest value, ``[*B, (N)]``."""
    return (value if mask is None else mask_actions(value, mask)).argmax(dim=-1)


def _check_exploration(epsilon: float | Tensor, temperature: float) -> None:
    """Refuse probabilities and temperatures that are out of range or NaN."""
    values = torch.as_tensor(epsilon)
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError(f"epsilon must be in [0, 1], got {epsilon}; it is the probability of a random action")
    if not temperature >= 0:
        raise ValueError(f"temperature must be at least 0, got {temperature}; 0 chooses the best action")
