"""An actor-critic network around any body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from tensordict import NestedKey
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torch.distributions import Distribution
from torchrl.modules import ProbabilisticActor

import tesserl_actor_critic.divergences  # noqa: F401 - tells torch of the divergences of our distributions
from tesserl_actor_critic.distributions import Categorical, DiagonalNormal, MultiCategorical, TanhNormal
from tesserl_actor_critic.paths import Path, as_tuple, run_body
from tesserl_actor_critic.spaces import ContinuousActions, DiscreteActions, read_action_space
from tesserl_nn_components import CategoricalHead, GaussianHead, MultiCategoricalHead, ValueHead, orthogonal_init
from tesserl_nn_components.mlp import Activation


class ActorCritic(nn.Module):
    """A policy and a state value on one body, or on a body each.

    What the policy head returns decides the distribution: logits ``[*B, A]`` of a single choice, ``[*B, N, A]`` of
    ``N`` action blocks of equal size (a MultiDiscrete with equal entries), ``[*B, sum(nvec)]`` of choices of different
    sizes; or ``loc`` and ``scale`` ``[*B, D]`` of a Gaussian, as it is (the environment clips its actions) or squashed
    by tanh into the bounds of the space.

    A recurrent body has ``state_keys`` and maps ``(*inputs, is_init, *state)`` to ``(features, *new_state)``; actor and
    critic share it. `in_keys` then ends with ``"is_init"`` and the state's keys. Inputs are those of one step ``[N,
    ...]`` with ``is_init`` ``[N, 1]``, or of whole sequences ``[N, T, ...]`` with ``is_init`` ``[N, T, 1]``; the state
    is the one before the first step, ``[N, layers, F]``, and of a state for every step, ``[N, T, layers, F]``, the
    first is taken.

    Args:
        body: maps its inputs to features ``[*B, out_features]``; has ``in_keys`` and ``out_features``. Never
            initialised here: it may be pretrained.
        action_space: number of actions; a Gymnasium ``Discrete``, ``MultiDiscrete`` or ``Box``; or a torchrl
            ``Categorical``, ``MultiCategorical``, ``Bounded`` or ``Unbounded`` spec of one environment.
        critic_body: body of the value alone, with the same ``in_keys``; None shares ``body``.
        policy_head: module from features to the parameters of the distribution; None builds the head of the space.
        value_head: module from features to ``[*B, 1]``; None builds a `ValueHead`.
        hidden_sizes: hidden widths of each head that is built here; empty for one linear layer.
        activation: makes the activation module of heads that are built here.
        distribution: of real actions: ``"normal"``, or ``"tanh_normal"`` for a bounded space.
        orthogonal: initialise both heads, given ones too: orthogonal weights and zero biases, gain 0.01 in the last
            layer of the policy, 1 in that of the value, and that of the activation in hidden layers.

    Raises:
        TypeError: a body lacks ``in_keys`` or ``out_features``, or the action space is of another kind.
        ValueError: the distribution does not fit the space, the bodies differ in their inputs, or a recurrent body is
            not shared.
    """

    distribution_class: Any
    low: Tensor | None
    high: Tensor | None

    def __init__(
        self,
        body: nn.Module,
        *,
        action_space: Any,
        critic_body: nn.Module | None = None,
        policy_head: nn.Module | None = None,
        value_head: nn.Module | None = None,
        hidden_sizes: int | Sequence[int] = (),
        activation: Activation = nn.Tanh,
        distribution: Literal["normal", "tanh_normal"] = "normal",
        orthogonal: bool = True,
    ) -> None:
        super().__init__()
        _check_bodies(body, critic_body)
        actions = read_action_space(action_space)
        if distribution not in ("normal", "tanh_normal"):
            raise ValueError(f"distribution must be normal or tanh_normal, got {distribution!r}")
        if distribution == "tanh_normal" and not (isinstance(actions, ContinuousActions) and actions.is_bounded):
            raise ValueError(f"tanh_normal needs an action space with finite bounds, got {action_space!r}; use normal")
        head: dict[str, Any] = {"hidden_sizes": hidden_sizes, "activation": activation}
        self.body = body
        self.policy = _policy_head(_width(body), actions, head) if policy_head is None else policy_head
        self.value = (
            ValueHead(_width(body if critic_body is None else critic_body), **head)
            if value_head is None
            else value_head
        )
        self.critic_body = critic_body
        self.state_keys: list[NestedKey] = list(getattr(body, "state_keys", ()))
        self.actions = actions
        self.distribution_class, self._distribution_options = _distribution(actions, distribution)
        self._is_squashed = self.distribution_class is TanhNormal
        for name in ("low", "high"):  # buffers, so that they move with the network
            self.register_buffer(name, getattr(actions, name).clone() if self._is_squashed else None, persistent=False)
        if orthogonal:
            _initialise_head(self.policy, "policy")
            _initialise_head(self.value, "value")

    @property
    def in_keys(self) -> list[NestedKey]:
        """Keys of the inputs in order: the body's, and those of a recurrent state."""
        keys = list(cast("list[NestedKey]", self.body.in_keys))
        return [*keys, "is_init", *self.state_keys] if self.state_keys else keys

    @property
    def parameter_keys(self) -> list[str]:
        """Keys of the parameters of the distribution."""
        return ["loc", "scale"] if isinstance(self.actions, ContinuousActions) else ["logits"]

    @property
    def out_keys(self) -> list[str]:
        """Keys of what `forward` returns."""
        return [*self.parameter_keys, "state_value"]

    @property
    def actor(self) -> ProbabilisticActor:
        """A torchrl actor around this network's policy: the same parameters.

        It reads `in_keys` and writes the parameters of the distribution, ``action`` and ``action_log_prob``, and below
        ``"next"`` the new state of a recurrent body; of sequences, the state after the last step at every step.
        """
        new_state: list[Any] = [("next", *((key,) if isinstance(key, str) else key)) for key in self.state_keys]
        module = TensorDictModule(
            Path(self.body, self.policy, recurrent=bool(self.state_keys)),
            in_keys=self.in_keys,
            out_keys=[*self.parameter_keys, *new_state],
        )
        actor = ProbabilisticActor(
            module,
            in_keys=self.parameter_keys,
            out_keys=["action"],
            distribution_class=self.distribution_class,
            distribution_kwargs=self._distribution_arguments(),
            return_log_prob=True,
        )
        actor.__dict__["actor_critic"] = self  # not registered: its parameters are those of the module above
        return actor

    @property
    def critic(self) -> TensorDictModule:
        """A TensorDictModule around this network's value: the same parameters. It writes ``state_value``."""
        path = Path(self._value_body, self.value, recurrent=bool(self.state_keys))
        ignored = ["_"] * len(self.state_keys)
        critic = TensorDictModule(path, in_keys=self.in_keys, out_keys=["state_value", *ignored])
        critic.__dict__["actor_critic"] = self
        return critic

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the policy and the value, a shared body once.

        Args:
            *inputs: in the order of `in_keys`.

        Returns:
            The parameters of the distribution and the state value ``[*B, 1]``, in reward units.
        """
        if self.state_keys:
            return self.forward_recurrent(*inputs)[: len(self.out_keys)]
        features, critic_body = self.body(*inputs), self.critic_body
        value = self.value(features if critic_body is None else critic_body(*inputs))
        return *as_tuple(self.policy(features)), value

    def forward_recurrent(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the policy and the value on a recurrent body.

        Args:
            *inputs: in the order of `in_keys`: the observations, ``is_init`` and the state.

        Returns:
            The parameters of the distribution, the state value ``[*B, 1]`` and the new state.
        """
        features, *state = run_body(self.body, inputs, recurrent=True)
        return *as_tuple(self.policy(features)), self.value(features), *state

    def policy_parameters(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the policy alone.

        Args:
            *inputs: in the order of `in_keys`.

        Returns:
            The parameters of the distribution.
        """
        return as_tuple(self.policy(run_body(self.body, inputs, recurrent=bool(self.state_keys))[0]))

    def state_value(self, *inputs: Tensor) -> Tensor:
        """Run the value alone.

        Args:
            *inputs: in the order of `in_keys`.

        Returns:
            Value of each state, in reward units, ``[*B, 1]``.
        """
        return self.value(run_body(self._value_body, inputs, recurrent=bool(self.state_keys))[0])

    def distribution(self, *parameters: Tensor) -> Distribution:
        """Return the distribution over actions.

        Args:
            *parameters: ``logits``, or ``loc`` and ``scale``.

        Returns:
            A distribution whose log-probabilities and entropies are those of whole actions, ``[*B]``.
        """
        return self.distribution_class(*parameters, **self._distribution_arguments())

    def act(self, *inputs: Tensor) -> Tensor:
        """Draw actions. Call it under ``torch.no_grad()``.

        Args:
            *inputs: in the order of `in_keys`.

        Returns:
            Actions: int64 ``[*B]`` or ``[*B, N]``, or real ``[*B, D]``.
        """
        return self.distribution(*self.policy_parameters(*inputs)).sample()

    def greedy(self, *inputs: Tensor) -> Tensor:
        """Choose the most probable actions; of real actions the mean, squashed where the distribution is.

        Args:
            *inputs: in the order of `in_keys`.

        Returns:
            Actions: int64 ``[*B]`` or ``[*B, N]``, or real ``[*B, D]``.
        """
        return self.distribution(*self.policy_parameters(*inputs)).mode

    @property
    def _value_body(self) -> nn.Module:
        return self.body if self.critic_body is None else self.critic_body

    def _distribution_arguments(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high} if self._is_squashed else self._distribution_options


def _width(body: nn.Module) -> int:
    return cast("int", body.out_features)


def _check_bodies(body: nn.Module, critic_body: nn.Module | None) -> None:
    for each in (body, critic_body):
        for name in ("in_keys", "out_features"):
            if each is not None and not hasattr(each, name):
                raise TypeError(
                    f"body must have {name}, got {type(each).__name__} without it; "
                    'set body.in_keys, such as ["observation"], and body.out_features, the width of its output'
                )
    if critic_body is None:
        return
    if getattr(body, "state_keys", ()) or getattr(critic_body, "state_keys", ()):
        raise ValueError("a recurrent body must be shared by actor and critic, got a critic_body too; leave it out")
    keys, critic_keys = list(cast("list[str]", body.in_keys)), list(cast("list[str]", critic_body.in_keys))
    if keys != critic_keys:
        raise ValueError(f"critic_body must have the in_keys of body {keys}, got {critic_keys}")


def _policy_head(in_features: int, actions: DiscreteActions | ContinuousActions, head: dict[str, Any]) -> nn.Module:
    if isinstance(actions, ContinuousActions):
        return GaussianHead(in_features, len(actions.low), **head)
    if actions.scalar or actions.num_blocks is not None:
        return CategoricalHead(in_features, actions.nvec[0], num_blocks=actions.num_blocks, **head)
    return MultiCategoricalHead(in_features, actions.nvec, **head)


def _distribution(
    actions: DiscreteActions | ContinuousActions, name: Literal["normal", "tanh_normal"]
) -> tuple[type[Distribution], dict[str, Any]]:
    """Return the class of the distribution and what it needs besides its parameters."""
    if isinstance(actions, ContinuousActions):
        return (DiagonalNormal if name == "normal" else TanhNormal), {}
    if actions.scalar or actions.num_blocks is not None:
        return Categorical, {"blocks": not actions.scalar}
    return MultiCategorical, {"nvec": actions.nvec}


def _initialise_head(head: nn.Module, last: Literal["policy", "value"]) -> None:
    has_tanh = any(isinstance(module, nn.Tanh) for module in head.modules())
    orthogonal_init(head, "tanh" if has_tanh else "relu")
    layers = [module for module in head.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    if layers:
        orthogonal_init(layers[-1], last)
