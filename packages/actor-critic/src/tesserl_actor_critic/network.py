"""An actor-critic network around any body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from tensordict import NestedKey
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torch.distributions import Distribution

import tesserl_actor_critic.divergences  # noqa: F401 - tells torch of the divergences of our distributions
from tesserl_actor_critic.distributions import Categorical, TanhNormal
from tesserl_actor_critic.distributions.discrete import draw_categories
from tesserl_actor_critic.heads import (
    check_bodies,
    check_shared,
    initialize_head,
    make_policy_head,
    select_distribution,
)
from tesserl_actor_critic.paths import Path, as_tuple, run_body, split_mask
from tesserl_actor_critic.spaces import ContinuousActions, read_action_space
from tesserl_nn_components import ValueHead, width_of
from tesserl_nn_components.calls import child, run
from tesserl_nn_components.mlp import Activation
from tesserl_policy import at_least_float32

if TYPE_CHECKING:
    from torchrl.modules import ProbabilisticActor


class ActorCritic(nn.Module):
    """A policy and a state value on one shared body, or on two bodies.

    The policy head returns the parameters of the distribution. For discrete actions these are logits: ``[*B, A]`` of a
    single choice, ``[*B, N, A]`` of ``N`` action blocks of equal size (a MultiDiscrete with equal entries), or
    ``[*B, sum(nvec)]`` of choices of different sizes. For continuous actions they are ``loc`` and ``scale`` ``[*B, D]``
    of a Gaussian. The Gaussian is either unbounded (the environment clips its actions) or squashed by tanh into the
    bounds of the space.

    A recurrent body has ``state_keys`` and maps ``(*inputs, is_init, *state)`` to ``(features, *new_state)``; actor and
    critic share it. `in_keys` then ends with ``"is_init"`` and the state's keys. Inputs are one step ``[N, ...]`` with
    ``is_init`` ``[N, 1]``, or sequences ``[N, T, ...]`` with ``is_init`` ``[N, T, 1]``. The state is the one before the
    first step, ``[N, layers, F]``. If a state is given for every step, ``[N, T, layers, F]``, the first one is used.

    With ``masked`` the network also reads ``action_mask``, after the body's inputs: bool, in the shape of the logits,
    true for allowed actions. `tesserl_policy.mask_actions` gives forbidden actions a probability of exactly 0.

    Args:
        body: maps its inputs to features ``[*B, out_features]``; has ``in_keys`` and ``out_features``. It is never
            initialised here, because it may be pretrained.
        action_space: number of actions; a Gymnasium ``Discrete``, ``MultiDiscrete`` or ``Box``; or a torchrl
            ``Categorical``, ``MultiCategorical``, ``Bounded`` or ``Unbounded`` spec of one environment.
        critic_body: separate body of the value, with the same ``in_keys``; None shares ``body``.
        shared: hidden layers between a shared body and both heads, such as an ``MLP`` without an output layer. They map
            features to ``[*B, out_features]`` and have the attribute ``out_features``. None: both heads read the
            features of the body.
        policy_head: module from features to the parameters of the distribution; None builds the head for the action
            space.
        value_head: module from features to ``[*B, 1]``; None builds a `ValueHead`.
        hidden_sizes: hidden widths of the heads that this class builds; empty for one linear layer.
        activation: makes the activation module of the heads that this class builds.
        distribution: for continuous actions: ``"normal"``, or ``"tanh_normal"`` for a bounded space.
        orthogonal: initialise ``shared`` and both heads, including given heads, with orthogonal weights and zero
            biases. The gain is 0.01 in the last layer of the policy, 1 in the last layer of the value, and the gain of
            the activation in hidden layers.
        masked: whether the network reads ``action_mask``; only for discrete actions.

    Raises:
        TypeError: a body lacks ``in_keys`` or ``out_features``, ``shared`` lacks ``out_features``, or the action space
            is not supported.
        ValueError: the distribution does not fit the space, the bodies differ in their inputs, a recurrent body is not
            shared, both ``critic_body`` and ``shared`` are given, or continuous actions are masked.
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
        shared: nn.Module | None = None,
        policy_head: nn.Module | None = None,
        value_head: nn.Module | None = None,
        hidden_sizes: int | Sequence[int] = (),
        activation: Activation = nn.Tanh,
        distribution: Literal["normal", "tanh_normal"] = "normal",
        orthogonal: bool = True,
        masked: bool = False,
    ) -> None:
        super().__init__()
        check_bodies(body, critic_body)
        check_shared(shared, critic_body)
        actions = read_action_space(action_space)
        if distribution not in ("normal", "tanh_normal"):
            raise ValueError(f"distribution must be normal or tanh_normal, got {distribution!r}")
        if distribution == "tanh_normal" and not (isinstance(actions, ContinuousActions) and actions.is_bounded):
            raise ValueError(f"tanh_normal needs an action space with finite bounds, got {action_space!r}; use normal")
        if masked and isinstance(actions, ContinuousActions):
            raise ValueError(f"masked needs discrete actions, got {action_space!r}; leave masked out")
        head: dict[str, Any] = {"hidden_sizes": hidden_sizes, "activation": activation}
        features = width_of(body if shared is None else shared)
        self.body = body
        self.shared = shared
        self.policy = make_policy_head(features, actions, head) if policy_head is None else policy_head
        features = features if critic_body is None else width_of(critic_body)
        self.value = ValueHead(features, **head) if value_head is None else value_head
        self.critic_body = critic_body
        self.state_keys: list[NestedKey] = list(getattr(body, "state_keys", ()))
        self.actions = actions
        self.masked = masked
        self.distribution_class, self._distribution_options = select_distribution(actions, distribution)
        self._is_squashed = self.distribution_class is TanhNormal
        for name in ("low", "high"):  # buffers, so that they move with the network
            self.register_buffer(name, getattr(actions, name).clone() if self._is_squashed else None, persistent=False)
        self._is_orthogonal = orthogonal
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise the heads and the shared layers orthogonally, if the network was built with ``orthogonal``."""
        if not self._is_orthogonal:
            return
        if self.shared is not None:
            initialize_head(self.shared)
        initialize_head(self.policy, "policy")
        initialize_head(self.value, "value")

    @property
    def in_keys(self) -> list[NestedKey]:
        """Keys of the inputs, in order: the body's, ``action_mask`` if masked, ``is_init`` and a recurrent state."""
        return self._keys(masked=self.masked)

    def _keys(self, *, masked: bool) -> list[NestedKey]:
        keys = [*cast("list[NestedKey]", self.body.in_keys), *(["action_mask"] if masked else [])]
        return [*keys, "is_init", *self.state_keys] if self.state_keys else keys

    @property
    def parameter_keys(self) -> list[str]:
        """Keys of the parameters of the distribution."""
        return ["loc", "scale"] if isinstance(self.actions, ContinuousActions) else ["logits"]

    @property
    def out_keys(self) -> list[str]:
        """Keys of the outputs of `forward`."""
        return [*self.parameter_keys, "state_value"]

    @property
    def actor(self) -> ProbabilisticActor:
        """A torchrl actor around this network's policy, with the same parameters.

        It reads `in_keys`. It writes the parameters of the distribution, ``action``, ``action_log_prob`` and, for a
        recurrent body, the new state under ``"next"``. For sequences every step gets the state after the last step.
        """
        from torchrl.modules import ProbabilisticActor  # lazily: a process that only acts does not need torchrl

        new_state: list[Any] = [("next", *((key,) if isinstance(key, str) else key)) for key in self.state_keys]
        module = TensorDictModule(
            Path(self.body, self._behind_shared(self.policy), recurrent=bool(self.state_keys), masked=self.masked),
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
        actor.__dict__["actor_critic"] = self  # not registered as a submodule: the actor holds its parameters already
        return actor

    @property
    def critic(self) -> TensorDictModule:
        """A TensorDictModule around this network's value, with the same parameters. It writes ``state_value``."""
        path = Path(self._value_body, self._behind_shared(self.value), recurrent=bool(self.state_keys))
        ignored = ["_"] * len(self.state_keys)
        critic = TensorDictModule(path, in_keys=self._keys(masked=False), out_keys=["state_value", *ignored])
        critic.__dict__["actor_critic"] = self
        return critic

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the policy and the value; a shared body runs once.

        Args:
            *inputs: in the order of `in_keys`.

        Returns:
            The parameters of the distribution and the state value ``[*B, 1]``, in reward units.
        """
        if self.state_keys:
            return self.forward_recurrent(*inputs)[: len(self.out_keys)]
        inputs, mask = self._split_mask(inputs)
        features, critic_body = self._hidden(run(child(self, "body"), *inputs)), self.critic_body
        value = run(child(self, "value"), features if critic_body is None else run(critic_body, *inputs))
        return *as_tuple(run(child(self, "policy"), features), mask), value

    def forward_recurrent(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the policy and the value on a recurrent body.

        Args:
            *inputs: in the order of `in_keys`: the observations, ``is_init`` and the state.

        Returns:
            The parameters of the distribution, the state value ``[*B, 1]`` and the new state.
        """
        inputs, mask = self._split_mask(inputs)
        features, *state = run_body(self.body, inputs, recurrent=True)
        features = self._hidden(features)
        return *as_tuple(self.policy(features), mask), self.value(features), *state

    def policy_parameters(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the policy alone.

        Args:
            *inputs: in the order of `in_keys`.

        Returns:
            The parameters of the distribution.
        """
        inputs, mask = self._split_mask(inputs)
        body = child(self, "body")
        features = run_body(body, inputs, recurrent=True)[0] if self.state_keys else run(body, *inputs)
        return as_tuple(run(child(self, "policy"), self._hidden(features)), mask)

    def state_value(self, *inputs: Tensor) -> Tensor:
        """Run the value alone.

        Args:
            *inputs: in the order of `in_keys`.

        Returns:
            Value of each state, in reward units, ``[*B, 1]``.
        """
        inputs, _ = self._split_mask(inputs)
        features = run_body(self._value_body, inputs, recurrent=bool(self.state_keys))[0]
        return self.value(self._hidden(features))

    def distribution(self, *parameters: Tensor) -> Distribution:
        """Return the distribution over actions.

        Args:
            *parameters: ``logits``, or ``loc`` and ``scale``.

        Returns:
            A distribution over whole actions: its log-probabilities and entropies have the shape ``[*B]``.
        """
        return self.distribution_class(*parameters, **self._distribution_arguments())

    def act(self, *inputs: Tensor) -> Tensor:
        """Draw actions. Call it under ``torch.no_grad()``.

        Args:
            *inputs: in the order of `in_keys`.

        Returns:
            Discrete actions, int64 ``[*B]`` or ``[*B, N]``; continuous actions, ``[*B, D]``.
        """
        return self.draw(*self.policy_parameters(*inputs))

    def draw(self, *parameters: Tensor) -> Tensor:
        """Draw actions from the distribution. Call it under ``torch.no_grad()``.

        Args:
            *parameters: see `distribution`.

        Returns:
            See `act`.
        """
        if self.distribution_class is Categorical:  # skip the distribution object, which takes as long as the draw
            return draw_categories(at_least_float32(parameters[0]))
        return self.distribution(*parameters).sample()

    def greedy(self, *inputs: Tensor) -> Tensor:
        """Return the most probable discrete actions, or the mean of continuous actions, squashed for ``"tanh_normal"``.

        Args:
            *inputs: in the order of `in_keys`.

        Returns:
            Discrete actions, int64 ``[*B]`` or ``[*B, N]``; continuous actions, ``[*B, D]``.
        """
        return self.distribution(*self.policy_parameters(*inputs)).mode

    def _split_mask(self, inputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Split off the action mask; return the other inputs and the mask."""
        return split_mask(inputs, len(self.body.in_keys)) if self.masked else (inputs, None)  # type: ignore[arg-type]

    def _hidden(self, features: Tensor) -> Tensor:
        """Return the inputs of the heads, given the features of a body."""
        return features if self.shared is None else self.shared(features)

    def _behind_shared(self, head: nn.Module) -> nn.Module:
        """Return a head with the shared layers before it, as one module."""
        return head if self.shared is None else nn.Sequential(self.shared, head)

    @property
    def _value_body(self) -> nn.Module:
        return self.body if self.critic_body is None else self.critic_body

    def _distribution_arguments(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high} if self._is_squashed else self._distribution_options
