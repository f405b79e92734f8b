"""Fixtures of several test files: a small loss, transitions, and the storage behind its tensors."""

import warnings

import pytest
import torch
from tensordict import TensorDict
from torchrl.objectives import HardUpdate

from tesserl_iqn import IQNLoss, QuantileNetwork
from tesserl_nn_components import VectorEncoder

with warnings.catch_warnings():  # deprecations of its own classes, on import only (torchrl 0.14.1)
    warnings.simplefilter("ignore", DeprecationWarning)
    import torchrl.collectors  # noqa: F401


@pytest.fixture
def make_loss():
    """Build a loss around a small noisy network with running statistics, a target updater attached."""

    def build(network=None, *, num_blocks=None, noisy=True, **options):
        if network is None:
            body = VectorEncoder(5, hidden_sizes=[7], running=True)
            network = QuantileNetwork(
                body, 3, num_blocks=num_blocks, hidden_sizes=(11,), dueling=True, noisy=noisy, num_cosines=9
            )
        loss = IQNLoss(network, **options)
        HardUpdate(loss, value_network_update_interval=100)  # silences torchrl's warning that nobody updates
        return loss

    return build


@pytest.fixture
def make_batch():
    """Build random transitions of five features and three actions."""

    def build(*batch_shape, num_blocks=None):
        blocks = () if num_blocks is None else (num_blocks,)
        return TensorDict(
            {
                "observation": torch.randn(*batch_shape, 5),
                "action": torch.randint(0, 3, (*batch_shape, *blocks)),
                "next": {
                    "observation": torch.randn(*batch_shape, 5),
                    "reward": torch.randn(*batch_shape, 1),
                    "terminated": torch.rand(*batch_shape, 1) < 0.3,
                },
            },
            batch_shape,
        )

    return build
