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

    With ``masked`` the network reads ``action_mask`` behind the body's inputs: bool, in the shape of the logits, true
    for allowed actions. Forbidden actions have a logit of `tesserl_policy.mask_actions` and a probability of exactly 0.

    Args:
        body: maps its inputs to features ``[*B, out_features]``; has ``in_keys`` and ``out_features``. Never
            initialised here: it may be pretrained.
        action_space: number of actions; a Gymnasium ``Discrete``, ``MultiDiscrete`` or ``Box``; or a torchrl
            ``Categorical``, ``MultiCategorical``, ``Bounded`` or ``Unbounded`` spec of one environment.
        critic_body: body of the value alone, with the same ``in_keys``; None shares ``body``.
        shared: hidden layers between a shared body and both heads, from features to ``[*B, out_features]`` with that
            attribute, such as an ``MLP`` without an output layer; None: both heads read the features themselves.
        policy_head: module from features to the parameters of the distribution; None builds the head of the space.
        value_head: module from features to ``[*B, 1]``; None builds a `ValueHead`.
        hidden_sizes: hidden widths of each head that is built here; empty for one linear layer.
        activation: makes the activation module of heads that are built here.
        distribution: of real actions: ``"normal"``, or ``"tanh_normal"`` for a bounded space.
        orthogonal: initialise ``shared`` and both heads, given ones too: orthogonal weights and zero biases, gain 0.01
            in the last layer of the policy, 1 in that of the value, and that of the activation in hidden layers.
        masked: whether the network reads which actions are allowed; for discrete actions.

    Raises:
        TypeError: a body lacks ``in_keys`` or ``out_features``, ``shared`` lacks ``out_features``, or the action space
            is of another kind.
        ValueError: the distribution does not fit the space, the bodies differ in their inputs, a recurrent body is not
            shared, there is a ``critic_body`` beside ``shared``, or continuous actions are masked.
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
        """Give the heads and the shared layers orthogonal weights, if the network was built with these."""
        if not self._is_orthogonal:
            return
        if self.shared is not None:
            initialize_head(self.shared)
        initialize_head(self.policy, "policy")
        initialize_head(self.value, "value")

    @property
    def in_keys(self) -> list[NestedKey]:
        """Keys of the inputs in order: the body's, ``action_mask`` with masks, and those of a recurrent state."""
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
        """Keys of what `forward` returns."""
        return [*self.parameter_keys, "state_value"]

    @property
    def actor(self) -> ProbabilisticActor:
        """A torchrl actor around this network's policy: the same parameters.

        It reads `in_keys` and writes the parameters of the distribution, ``action`` and ``action_log_prob``, and below
        ``"next"`` the new state of a recurrent body; of sequences, the state after the last step at every step.
        """
        from torchrl.modules import ProbabilisticActor  # losses need it; a process that only acts does not import it

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
        actor.__dict__["actor_critic"] = self  # not registered: its parameters are those of the module above
        return actor

    @property
    def critic(self) -> TensorDictModule:
        """A TensorDictModule around this network's value: the same parameters. It writes ``state_value``."""
        path = Path(self._value_body, self._behind_shared(self.value), recurrent=bool(self.state_keys))
        ignored = ["_"] * len(self.state_keys)
        critic = TensorDictModule(path, in_keys=self._keys(masked=False), out_keys=["state_value", *ignored])
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
        return self.draw(*self.policy_parameters(*inputs))

    def draw(self, *parameters: Tensor) -> Tensor:
        """Draw actions from the distribution. Call it under ``torch.no_grad()``.

        Args:
            *parameters: see `distribution`.

        Returns:
            See `act`.
        """
        if self.distribution_class is Categorical:  # the distribution itself takes as long as the draw
            return draw_categories(at_least_float32(parameters[0]))
        return self.distribution(*parameters).sample()

    def greedy(self, *inputs: Tensor) -> Tensor:
        """Choose the most probable actions; of real actions the mean, squashed where the distribution is.

        Args:
            *inputs: in the order of `in_keys`.

        Returns:
            Actions: int64 ``[*B]`` or ``[*B, N]``, or real ``[*B, D]``.
        """
        return self.distribution(*self.policy_parameters(*inputs)).mode

    def _split_mask(self, inputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Return the inputs without the mask of actions, and the mask."""
        return split_mask(inputs, len(self.body.in_keys)) if self.masked else (inputs, None)  # type: ignore[arg-type]

    def _hidden(self, features: Tensor) -> Tensor:
        """Return what the heads read of the features of a body."""
        return features if self.shared is None else self.shared(features)

    def _behind_shared(self, head: nn.Module) -> nn.Module:
        """Return a module from the features of a body to the outputs of a head."""
        return head if self.shared is None else nn.Sequential(self.shared, head)

    @property
    def _value_body(self) -> nn.Module:
        return self.body if self.critic_body is None else self.critic_body

    def _distribution_arguments(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high} if self._is_squashed else self._distribution_options
