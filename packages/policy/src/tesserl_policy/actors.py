"""Call any policy that has a distribution over actions: a torchrl actor, or a module without TensorDicts.

Shapes: ``*B`` is the batch shape. Log-probabilities and entropies are those of whole actions, summed over blocks and
dimensions, in float32 or wider.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tensordict import NestedKey, TensorDict
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, Normal, OneHotCategorical

from tesserl_policy.precision import at_least_float32


def check_actor(actor_network: Any) -> None:
    """Reject a policy that has no distribution over actions, or nothing to train.

    Args:
        actor_network: a torchrl ``ProbabilisticActor`` or any module with ``in_keys`` and ``get_dist(tensordict)``; or
            a module that is called directly: with ``in_keys``, ``policy_parameters(*inputs)`` and
            ``distribution(*parameters)``.

    Raises:
        TypeError: it is neither, or has no parameters.
    """
    if not hasattr(actor_network, "in_keys") or not (is_direct(actor_network) or hasattr(actor_network, "get_dist")):
        raise TypeError(
            "actor_network must be a torchrl ProbabilisticActor, or have in_keys, policy_parameters and distribution, "
            f"got {type(actor_network).__name__}; wrap a network with ProbabilisticActor"
        )
    if not isinstance(actor_network, nn.Module) or next(actor_network.parameters(), None) is None:
        raise TypeError(
            "actor_network must be an nn.Module with parameters to train, got one without any "
            f"({type(actor_network).__name__}); build it around a network, not around a function"
        )


def policy_distribution(actor_network: Any, inputs: Mapping[NestedKey, Tensor], batch_shape: Sequence[int]) -> Any:
    """Run a policy.

    Args:
        actor_network: see `check_actor`.
        inputs: the entries that its ``in_keys`` name, in that order, ``[*B, ...]`` each.
        batch_shape: ``*B``.

    Returns:
        The distribution over actions.

    Raises:
        TypeError: the policy returns something else than tensors.
    """
    if not is_direct(actor_network):
        return _torchrl_distribution(actor_network, TensorDict(dict(inputs), batch_shape))
    parameters = actor_network.policy_parameters(*inputs.values())
    if isinstance(parameters, Tensor):
        return actor_network.distribution(parameters)
    if not isinstance(parameters, tuple | list):
        raise TypeError(
            f"policy_parameters of {type(actor_network).__name__} must return a tensor or a tuple of tensors, got "
            f"{type(parameters).__name__}; return its tensors, such as output.logits"
        )
    return actor_network.distribution(*parameters)


def action_log_probs(distribution: Any, action: Tensor, batch_shape: Sequence[int]) -> Tensor:
    """Return log-probabilities of whole actions.

    Args:
        distribution: over the actions of each step.
        action: actions as the distribution draws them, ``[*B, ...]``.
        batch_shape: ``*B``.

    Returns:
        Log-probabilities, ``[*B]``.

    Raises:
        TypeError: actions of a categorical distribution are not integers.
        ValueError: the distribution does not accept the actions, or does not return one log-probability per step.
    """
    if isinstance(distribution, Categorical) and action.is_floating_point():  # torch would truncate 0.5 to 0
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
    shape = getattr(log_probs, "shape", ())
    if shape != batch_shape:
        # extra dimensions are parts of an action if the distribution has them too; otherwise they come from
        # broadcasting
        expected = getattr(distribution, "batch_shape", batch_shape)
        if not isinstance(log_probs, Tensor) or shape != expected or shape[: len(batch_shape)] != batch_shape:
            raise ValueError(
                f"the policy must return one log-probability per step {tuple(batch_shape)}, got {tuple(shape)} for "
                f"actions {tuple(action.shape)}; drop singleton dimensions of the action"
            )
    return _whole_actions(log_probs, len(batch_shape))


def action_entropy(distribution: Any, num_dims: int) -> Tensor:
    """Return entropies of whole actions; of a distribution without a closed form, an estimate from one draw.

    Args:
        distribution: over the actions of each step.
        num_dims: number of batch dimensions.

    Returns:
        Entropies, in nats, ``[*B]``.
    """
    try:
        entropy = distribution.entropy()
    except NotImplementedError:  # such as torchrl's Gaussian squashed by tanh
        entropy = -distribution.log_prob(distribution.rsample())
    return _whole_actions(entropy, num_dims)


def log_mean_density(distribution: Any, num_dims: int) -> Tensor:
    """Return the log of the mean probability of an action that the policy draws, ``log sum_a pi(a)^2``.

    For continuous actions the density and its integral take the places of probability and sum.

    Args:
        distribution: over the actions of each step: a categorical or normal one of torch or torchrl, or any that has
            ``log_mean_density()``.
        num_dims: number of batch dimensions.

    Returns:
        Logarithms, in nats, ``[*B]``; parts of an action are independent, so they are sums over the parts.

    Raises:
        TypeError: the distribution has no closed form.
    """
    closed_form = getattr(distribution, "log_mean_density", None)
    if closed_form is not None:
        return _whole_actions(closed_form(), num_dims)
    match distribution:
        case Independent():
            return log_mean_density(distribution.base_dist, num_dims)
        case Normal():
            values = -at_least_float32(distribution.scale).log() - 0.5 * math.log(4 * math.pi)
        case Categorical() | OneHotCategorical():
            values = (2 * at_least_float32(distribution.logits).log_softmax(dim=-1)).logsumexp(dim=-1)
        case _:
            raise TypeError(
                "the distribution must be categorical or normal, or have log_mean_density(), got "
                f"{type(distribution).__name__}, whose mean density has no closed form; choose another distribution"
            )
    return _whole_actions(values, num_dims)


def is_direct(actor_network: Any) -> bool:
    """Return whether a policy is called without TensorDicts.

    Args:
        actor_network: see `check_actor`.
    """
    kind = type(actor_network)
    if hasattr(kind, "policy_parameters") and hasattr(kind, "distribution"):
        return True
    if hasattr(kind, "get_dist"):  # a failed attribute lookup on a torchrl actor takes 20 microseconds
        return False
    return hasattr(actor_network, "policy_parameters") and hasattr(actor_network, "distribution")


def _torchrl_distribution(actor_network: Any, inputs: TensorDict) -> Any:
    """Return the distribution of a torchrl actor, or raise an error that names outputs that are not tensors."""
    try:
        return actor_network.get_dist(inputs)
    except (AttributeError, RuntimeError, TypeError) as error:
        if not hasattr(actor_network, "get_dist_params"):
            raise
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


def _whole_actions(values: Tensor, num_dims: int) -> Tensor:
    """Sum over the dimensions that belong to one action: ``[*B, ...]`` to ``[*B]``."""
    values = at_least_float32(values)
    return values.flatten(num_dims).sum(dim=-1) if values.dim() > num_dims else values
