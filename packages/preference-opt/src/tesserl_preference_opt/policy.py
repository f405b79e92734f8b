"""One pass of a policy, and of its value, over the steps of segments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from tensordict import NestedKey, TensorDict
from torch import Tensor, nn
from torch.distributions import Categorical

from tesserl_preference_opt.functional import value_loss
from tesserl_preference_opt.steps import Segments, Steps


def check_actor(actor_network: nn.Module) -> None:
    """Refuse what yields no distribution over actions, or has nothing to train.

    Args:
        actor_network: a torchrl ``ProbabilisticActor``, or a module that is called directly: with ``in_keys``,
            ``policy_parameters(*inputs)`` and ``distribution(*parameters)``.

    Raises:
        TypeError: it is neither.
    """
    if not hasattr(actor_network, "in_keys") or not (_is_direct(actor_network) or hasattr(actor_network, "get_dist")):
        raise TypeError(
            "actor_network must be a torchrl ProbabilisticActor, or have in_keys, policy_parameters and distribution, "
            f"got {type(actor_network).__name__}; wrap a network with ProbabilisticActor"
        )
    if not isinstance(actor_network, nn.Module) or next(actor_network.parameters(), None) is None:
        raise TypeError(
            "actor_network must be an nn.Module with parameters to train, got one without any "
            f"({type(actor_network).__name__}); build it around a network, not around a function"
        )


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode inside; afterwards each of its parts is in the mode that it was in.

    Args:
        module: some of its parts may be in evaluation mode for good.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def check_added_terms(loss_module: Any) -> None:
    """Refuse a discount and coefficients that are out of range, and a value loss without a value.

    Args:
        loss_module: see `PolicyPass.add_terms`; has a ``discount`` too.

    Raises:
        TypeError: nothing yields a value.
        ValueError: one of them is out of its range, or there is a critic that nothing would train.
    """
    if not 0 <= loss_module.discount <= 1:
        raise ValueError(f"discount must be in [0, 1], got {loss_module.discount}")
    if loss_module.value_coef < 0:
        raise ValueError(f"value_coef must be at least 0, got {loss_module.value_coef}")
    actor_network, critic_network = loss_module.actor_network, loss_module.critic_network
    if loss_module.value_coef and critic_network is None and not hasattr(actor_network, "state_value"):
        raise TypeError(
            "value_coef needs a critic_network that writes state_value, or an actor_network with state_value(*inputs), "
            f"got {type(actor_network).__name__} alone"
        )
    if critic_network is not None and not loss_module.value_coef:
        raise ValueError("critic_network is trained by value_coef, got 0; set value_coef or leave the critic out")


def action_key(actor_network: nn.Module, default: NestedKey) -> NestedKey:
    """Name of the action that a policy draws.

    Args:
        actor_network: see `check_actor`.
        default: what it is where the policy does not say.

    Returns:
        The name.
    """
    names: Sequence[NestedKey] = getattr(actor_network, "dist_sample_keys", ())
    return names[0] if names else default


class PolicyPass:
    """One pass of a policy over the valid steps of segments.

    Args:
        actor_network: see `check_actor`.
        segments: batches of segments with its ``in_keys``.
        action_key: name of the actions taken.

    Raises:
        KeyError: an entry is missing.
        ValueError: the actions do not fit the distribution.
    """

    def __init__(self, actor_network: nn.Module, segments: Sequence[Segments], action_key: NestedKey) -> None:
        self.steps = Steps(segments, keep_time=keeps_time(actor_network))
        self.action = self.steps.get(action_key)
        self.distribution = policy_distribution(actor_network, self.steps)
        self.flat_log_probs = action_log_probs(self.distribution, self.action, self.steps)

    @property
    def log_probs(self) -> Tensor:
        """Log-probs of the actions taken, ``[P, T]``; 0 on padding."""
        return self.steps.unpack(self.flat_log_probs)

    def nll(self) -> Tensor:
        """Return the mean negative log-prob of all valid steps' actions, in nats."""
        return -self.steps.mean(self.flat_log_probs)

    def add_terms(self, loss: Tensor, loss_module: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Add entropy bonus and value loss, means over all valid steps, to a loss.

        Args:
            loss: what they are added to, a scalar.
            loss_module: has ``actor_network``, ``critic_network``, ``entropy_coef`` (0 measures the entropy without
                gradient), ``value_coef`` (0 runs no critic) and ``tensor_keys``.

        Returns:
            The sum, and metrics.

        Raises:
            KeyError: there is no ``value_target``.
            ValueError: values and targets differ in shape.
        """
        with nullcontext() if loss_module.entropy_coef else torch.no_grad():
            entropy = self.steps.mean(policy_entropy(self.distribution, self.steps))
        metrics = {"entropy": entropy.detach()}
        if loss_module.entropy_coef:
            loss = loss - loss_module.entropy_coef * entropy
        if loss_module.value_coef:
            keys = loss_module.tensor_keys
            value = state_value(loss_module.actor_network, loss_module.critic_network, self.steps, keys.value)
            error = self.steps.mean(value_loss(value, self.steps.get(keys.value_target)))
            loss, metrics["value_loss"] = loss + loss_module.value_coef * error, error.detach()
        return loss, metrics


def keeps_time(network: Any) -> bool:
    """Tell whether a network reads the order of steps, by torchrl's sign for it: ``is_init`` among its keys.

    Args:
        network: has ``in_keys``.

    Returns:
        Whether it does.
    """
    return "is_init" in list(network.in_keys)


def policy_distribution(actor_network: Any, steps: Steps) -> Any:
    """Run a policy over steps.

    Args:
        actor_network: see `check_actor`.
        steps: with its ``in_keys``.

    Returns:
        Its distribution over actions.

    Raises:
        KeyError: an observation is missing.
        TypeError: the policy returns something else than tensors.
    """
    inputs = {key: steps.get(key) for key in actor_network.in_keys}
    if not _is_direct(actor_network):
        return _torchrl_distribution(actor_network, TensorDict(inputs, steps.batch_size))
    parameters = actor_network.policy_parameters(*inputs.values())
    if isinstance(parameters, Tensor):
        return actor_network.distribution(parameters)
    if not isinstance(parameters, tuple | list):
        raise TypeError(
            f"policy_parameters of {type(actor_network).__name__} must return a tensor or a tuple of tensors, got "
            f"{type(parameters).__name__}; return its tensors, such as output.logits"
        )
    return actor_network.distribution(*parameters)


def _torchrl_distribution(actor_network: Any, inputs: TensorDict) -> Any:
    """Return the distribution of a torchrl actor, or an error that names outputs that are no tensors."""
    try:
        return actor_network.get_dist(inputs)
    except (AttributeError, RuntimeError, TypeError) as error:
        outputs = actor_network.get_dist_params(inputs.copy())
        wrong = [
            f"{key}: {type(outputs.get(key)).__name__}"
            for key in getattr(actor_network, "dist_params_keys", ())
            if not isinstance(outputs.get(key), Tensor)
        ]
        if wrong:
            raise TypeError(
                f"modules of actor_network must write tensors, got {', '.join(wrong)}; return the tensors of an output "
                "object, such as output.logits"
            ) from error
        raise


def state_value(actor_network: Any, critic_network: Any, steps: Steps, key: NestedKey) -> Tensor:
    """Run a value over steps.

    Args:
        actor_network: asked for ``state_value(*inputs)`` where there is no critic.
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


def action_log_probs(distribution: Any, action: Tensor, steps: Steps) -> Tensor:
    """Log-probs of whole actions, summed over blocks or dimensions, in float32 or wider.

    Args:
        distribution: over the actions of the steps.
        action: as the distribution takes them.
        steps: the steps.

    Returns:
        In the shape of the steps' ``batch_size``.

    Raises:
        ValueError: the log-probs have another shape than the distribution's batch.
    """
    if isinstance(distribution, Categorical) and action.is_floating_point():  # torch would cut 0.5 to 0
        raise TypeError(
            f"actions must be what the policy's Categorical draws, got {action.dtype}; convert with .long()"
        )
    try:
        log_probs = distribution.log_prob(action)
    except (IndexError, RuntimeError) as error:
        raise ValueError(
            f"actions must be what the policy's {type(distribution).__name__} draws, got {action.dtype} of shape "
            f"{tuple(action.shape)}: {error}"
        ) from error
    expected = getattr(distribution, "batch_shape", steps.batch_size)
    if not isinstance(log_probs, Tensor) or log_probs.shape != expected:
        raise ValueError(
            f"log-probs must be a tensor of the distribution's batch shape {tuple(expected)}, got "
            f"{tuple(getattr(log_probs, 'shape', ()))} for actions {tuple(action.shape)}; "
            "store actions as the policy's distribution takes them, without singleton dimensions"
        )
    return _whole_actions(log_probs, steps)


def policy_entropy(distribution: Any, steps: Steps) -> Tensor:
    """Entropy of whole actions in nats; of distributions without a closed form an estimate from one draw.

    Args:
        distribution: over the actions of the steps.
        steps: the steps.

    Returns:
        In the shape of the steps' ``batch_size``.
    """
    try:
        entropy = distribution.entropy()
    except NotImplementedError:
        entropy = -distribution.log_prob(distribution.rsample())
    return _whole_actions(entropy, steps)


def _is_direct(actor_network: Any) -> bool:
    return hasattr(actor_network, "policy_parameters") and hasattr(actor_network, "distribution")


def _whole_actions(values: Tensor, steps: Steps) -> Tensor:
    if values.dtype in (torch.bfloat16, torch.float16):
        values = values.float()
    num_dims = len(steps.batch_size)
    return values.flatten(num_dims).sum(dim=-1) if values.dim() > num_dims else values
