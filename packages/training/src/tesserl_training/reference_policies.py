"""The trained policy and the reference policy of preference optimisation."""

from torch import nn

from tesserl_policy import ReferencePolicy
from tesserl_preference_data import PreferencePairs
from tesserl_training.pair_batches import with_reference


class Policies(nn.Module):
    """The loss with the trained policy, and the reference, which is in the loss or separate.

    Args:
        loss: loss of pairs on ``network``; it contains a moving reference.
        network: the trained policy.
        frozen: a reference that does not move.
        precision: precision of forward passes.
    """

    network: nn.Module

    def __init__(self, loss: nn.Module, network: nn.Module, frozen: ReferencePolicy | None, precision: str) -> None:
        super().__init__()
        self.loss, self.frozen = loss, frozen
        self.precision = precision
        self.__dict__["network"] = network  # not registered here: the loss registers it

    def restart_reference(self) -> None:
        """Copy the policy into the reference."""
        for reference in (self.frozen, getattr(self.loss, "reference", None)):
            if reference is not None:
                reference.move(self.network)

    def refer(self, pairs: PreferencePairs) -> PreferencePairs:
        """Add the log-probabilities of a frozen reference to pairs."""
        if self.frozen is None:
            return pairs
        device = next(self.frozen.parameters()).device
        return with_reference(pairs, self.frozen.network, device=device, precision=self.precision)
