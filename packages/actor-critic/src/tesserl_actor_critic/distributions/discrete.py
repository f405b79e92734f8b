"""Distributions over discrete actions: one choice, one per action block, or several of different sizes.

Shapes: ``*B`` any batch shape, ``A`` actions, ``N`` action blocks or choices.
Log-probabilities and entropies are sums over blocks and choices, ``[*B]``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Size, Tensor
from torch.distributions import Distribution

from tesserl_policy import at_least_float32


class Categorical(Distribution):
    """A single choice, or one choice per action block; all blocks have equally many actions.

    Args:
        logits: unnormalised log-probabilities, ``[*B, A]`` or ``[*B, N, A]``; -1e9 forbids an action (-inf would make
            the entropy NaN).
        blocks: whether the logits have a block dimension ``N``.
    """

    arg_constraints = {}  # noqa: RUF012 (torch's name)
    has_enumerate_support = False

    def __init__(self, logits: Tensor, *, blocks: bool = False) -> None:
        self.logits = at_least_float32(logits)
        self._log_policy: Tensor | None = None
        shape = logits.shape[:-1]
        super().__init__(*(shape[:-1], shape[-1:]) if blocks else (shape, Size()), validate_args=False)

    @property
    def log_policy(self) -> Tensor:
        """Log-probability of each action, ``[*B, A]`` or ``[*B, N, A]``."""
        if self._log_policy is None:  # lazily: drawing actions does not need it
            self._log_policy = self.logits.log_softmax(dim=-1)
        return self._log_policy

    @property
    def mode(self) -> Tensor:
        """The most probable action, int64 ``[*B]`` or ``[*B, N]``."""
        return self.logits.argmax(dim=-1)

    deterministic_sample = mode  # torchrl's name of it

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw actions.

        Args:
            sample_shape: shape of the draws.

        Returns:
            Categories, int64, ``[*sample_shape, *B]`` or ``[*sample_shape, *B, N]``.
        """
        return draw_categories(self.logits, sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of actions.

        Args:
            value: categories, int64, ``[*B]`` or ``[*B, N]``; leading dimensions may be added.

        Returns:
            Log-probability, ``[*B]``.

        Raises:
            TypeError: actions are not int64.
            ValueError: an action does not exist.
        """
        log_probs = _take(self.log_policy, value)
        return log_probs.sum(dim=-1) if self.event_shape else log_probs

    def entropy(self) -> Tensor:
        """Return the entropy in nats, ``[*B]``."""
        entropy = _entropy(self.log_policy)
        return entropy.sum(dim=-1) if self.event_shape else entropy

    def log_mean_density(self) -> Tensor:
        """Return the log of the mean probability of a drawn action, ``log sum_a pi(a)^2``, ``[*B]``."""
        values = _log_mean_probability(self.log_policy)
        return values.sum(dim=-1) if self.event_shape else values


class MultiCategorical(Distribution):
    """Several independent choices of different sizes.

    Args:
        logits: unnormalised log-probabilities of all choices, concatenated, ``[*B, sum(nvec)]``.
        nvec: number of options of each of the ``N`` choices.
    """

    arg_constraints = {}  # noqa: RUF012 (torch's name)
    has_enumerate_support = False

    def __init__(self, logits: Tensor, nvec: Sequence[int]) -> None:
        self.parts = torch.split(at_least_float32(logits), list(nvec), dim=-1)
        self._log_policies: list[Tensor] | None = None
        super().__init__(logits.shape[:-1], Size((len(nvec),)), validate_args=False)

    @property
    def log_policies(self) -> list[Tensor]:
        """Log-probabilities of the options of each choice, ``[*B, nvec[i]]``."""
        if self._log_policies is None:
            self._log_policies = [part.log_softmax(dim=-1) for part in self.parts]
        return self._log_policies

    @property
    def mode(self) -> Tensor:
        """The most probable option of each choice, int64 ``[*B, N]``."""
        return torch.stack([part.argmax(dim=-1) for part in self.parts], dim=-1)

    deterministic_sample = mode  # torchrl's name of it

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw actions.

        Args:
            sample_shape: shape of the draws.

        Returns:
            Categories, int64, ``[*sample_shape, *B, N]``.
        """
        return torch.stack([draw_categories(part, sample_shape) for part in self.parts], dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of actions.

        Args:
            value: categories, int64, ``[*B, N]``; leading dimensions may be added.

        Returns:
            Log-probability, ``[*B]``.

        Raises:
            TypeError: actions are not int64.
            ValueError: an action does not exist.
        """
        chosen = value.unbind(dim=-1)
        return sum_of([_take(*pair) for pair in zip(self.log_policies, chosen, strict=True)])

    def entropy(self) -> Tensor:
        """Return the entropy in nats, ``[*B]``."""
        return sum_of([_entropy(log_policy) for log_policy in self.log_policies])

    def log_mean_density(self) -> Tensor:
        """Return the log of the mean probability of a drawn action, ``log sum_a pi(a)^2``, ``[*B]``."""
        return sum_of([_log_mean_probability(log_policy) for log_policy in self.log_policies])


def sum_of(terms: Sequence[Tensor]) -> Tensor:
    """Return the sum of one or more tensors of the same shape."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _take(log_policy: Tensor, value: Tensor) -> Tensor:
    """Return the log-probabilities ``[*B]`` of categories ``[*B]``, given those of all categories ``[*B, A]``."""
    if value.dim() >= log_policy.dim():
        log_policy = log_policy.expand(*value.shape, log_policy.shape[-1])
    try:
        return log_policy.gather(-1, value.unsqueeze(-1)).squeeze(-1)
    except (IndexError, RuntimeError):
        _explain(value, log_policy.shape[-1])
        raise


def _explain(value: Tensor, number: int) -> None:
    """Raise an error that explains why actions have no log-probability; return if they are valid."""
    if value.dtype != torch.int64:
        raise TypeError(f"actions must be categories, int64, got {value.dtype}; convert them with .long()")
    if value.numel():
        low, high = (int(bound) for bound in value.aminmax())
        if low < 0 or high >= number:
            raise ValueError(
                f"actions must be in [0, {number}), got values from {low} to {high}; number the actions from 0"
            )


def _entropy(log_policy: Tensor) -> Tensor:
    return -(log_policy.exp() * log_policy).sum(dim=-1)


def _log_mean_probability(log_policy: Tensor) -> Tensor:
    return (2 * log_policy).logsumexp(dim=-1)


def draw_categories(logits: Tensor, sample_shape: Sequence[int] = ()) -> Tensor:
    """Draw categories from a softmax of logits.

    It uses the Gumbel-max trick: the argmax of logits plus Gumbel noise is a draw from their softmax, and minus the
    logarithm of an exponential variable is Gumbel noise. ``torch.multinomial`` takes five times as long for eight
    environments.

    Args:
        logits: unnormalised log-probabilities, ``[*B, A]``, in float32 or wider.
        sample_shape: shape of the draws.

    Returns:
        Categories, int64, ``[*sample_shape, *B]``.
    """
    if logits.requires_grad:
        logits = logits.detach()
    if sample_shape:
        exponential = logits.new_empty((*sample_shape, *logits.shape))
    else:
        exponential = torch.empty_like(logits, memory_format=torch.contiguous_format)
    return (logits - exponential.exponential_().log_()).argmax(dim=-1)
