"""One pass of a policy, and of its value, over the steps of segments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from tensordict import NestedKey, TensorDict
from torch import Tensor, nn

from tesserl_policy import action_entropy, action_log_probs, log_mean_density, policy_distribution
from tesserl_policy.loss_module import is_used
from tesserl_preference_data.segments import Segments
from tesserl_preference_opt.functional import pair_weights, value_loss
from tesserl_preference_opt.steps import Steps


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode inside a ``with`` block; restore the mode of each submodule afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def check_added_terms(loss_module: Any) -> None:
    """Refuse a discount and coefficients that are out of range, and a value loss without a value."""
    if not 0 <= loss_module.discount <= 1:
        raise ValueError(f"discount must be in [0, 1], got {loss_module.discount}")
    if loss_module.value_coef < 0:
        raise ValueError(f"value_coef must be at least 0, got {float(loss_module.value_coef)}")
    actor_network, critic_network = loss_module.actor_network, loss_module.critic_network
    if loss_module.value_coef and critic_network is None and not hasattr(actor_network, "state_value"):
        raise TypeError(
            "value_coef needs a critic_network that writes state_value, or an actor_network with state_value(*inputs), "
            f"got {type(actor_network).__name__} alone"
        )
    if critic_network is not None and not loss_module.value_coef:
        raise ValueError("critic_network is trained by value_coef, got 0; set value_coef or leave the critic out")


def action_key(actor_network: nn.Module, default: NestedKey) -> NestedKey:
    """Return the key of the action that a policy draws; the default if the policy does not declare it."""
    names: Sequence[NestedKey] = getattr(actor_network, "dist_sample_keys", ())
    return names[0] if names else default


class PolicyPass:
    """One pass of a policy over the valid steps of segments."""

    def __init__(self, actor_network: nn.Module, segments: Sequence[Segments], action_key: NestedKey) -> None:
        self.steps = Steps(segments, keep_time=keeps_time(actor_network))
        self.action = self.steps.get(action_key)
        self.distribution = run_policy(actor_network, self.steps)
        self.flat_log_probs = action_log_probs(self.distribution, self.action, self.steps.batch_size)

    @property
    def log_probs(self) -> Tensor:
        """Log-probs of the actions taken, ``[P, T]``; 0 on padding."""
        return self.steps.unpack(self.flat_log_probs)

    def nll(self) -> Tensor:
        """Return the mean negative log-prob of all valid steps' actions, in nats."""
        return -self.steps.mean(self.flat_log_probs)

    @torch.no_grad()
    def pair_weights(self) -> Tensor:
        """Return the weight of each pair under the current policy, see `pair_weights`, ``[P]``."""
        scores = self.flat_log_probs - log_mean_density(self.distribution, len(self.steps.batch_size))
        means = self.steps.sums(scores, discount=1.0) / self.steps.lengths(discount=1.0).clamp_min(1)
        return pair_weights(*means.view(2, -1).unbind())

    def add_terms(
        self, loss: Tensor, loss_module: Any, coefficients: Mapping[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Add entropy bonus and value loss, means over all valid steps, to a loss.

        Args:
            loss: the loss: a scalar, or terms of any shape.
            loss_module: has ``actor_network``, ``critic_network`` and ``tensor_keys``.
            coefficients: ``entropy_coef`` (0 measures the entropy without gradient) and perhaps ``value_coef`` (0 runs
                no critic).

        Returns:
            The sum, and metrics.

        Raises:
            KeyError: there is no ``value_target``.
            ValueError: values and targets differ in shape.
        """
        entropy_coef, value_coef = coefficients["entropy_coef"], coefficients.get("value_coef", 0.0)
        with nullcontext() if is_used(entropy_coef) else torch.no_grad():
            entropy = self.steps.mean(action_entropy(self.distribution, len(self.steps.batch_size)))
        metrics = {"entropy": entropy.detach()}
        if is_used(entropy_coef):
            loss = loss - entropy_coef * entropy
        if is_used(value_coef):
            keys = loss_module.tensor_keys
            value = state_value(loss_module.actor_network, loss_module.critic_network, self.steps, keys.value)
            error = self.steps.mean(value_loss(value, self.steps.get(keys.value_target)))
            loss, metrics["value_loss"] = loss + value_coef * error, error.detach()
        return loss, metrics


def keeps_time(network: Any) -> bool:
    """Return whether a network is recurrent, that is, has torchrl's ``is_init`` among its keys."""
    return "is_init" in list(network.in_keys)


def run_policy(actor_network: Any, steps: Steps) -> Any:
    """Return the distribution of a policy over the actions of steps."""
    inputs = {key: steps.get(key) for key in actor_network.in_keys}
    return policy_distribution(actor_network, inputs, steps.batch_size)


def state_value(actor_network: Any, critic_network: Any, steps: Steps, key: NestedKey) -> Tensor:
    """Run a value over steps.

    Args:
        actor_network: its ``state_value(*inputs)`` is used if there is no critic.
        critic_network: a TensorDictModule, or None.
        steps: with its ``in_keys``.
        key: name of the value that the critic writes.

    Returns:
        Values, in reward units, in the shape of the steps' ``batch_size`` with one dimension more, ``[..., 1]``.

    Raises:
        KeyError: an observation is missing.
    """
    if critic_network is None:
        return actor_network.state_value(*(steps.get(key) for key in actor_network.in_keys))
    inputs = {each: steps.get(each) for each in critic_network.in_keys}
    return critic_network(TensorDict(inputs, steps.batch_size)).get(key)
