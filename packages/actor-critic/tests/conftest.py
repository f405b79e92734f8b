"""Fixtures of several test files: action spaces of every kind, networks around them, and batches."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from tesserl_actor_critic import ActorCritic
from tesserl_nn_components import MLP, VectorEncoder

with warnings.catch_warnings():  # deprecations of its own classes, on import only (torchrl 0.14.1)
    warnings.simplefilter("ignore", DeprecationWarning)
    import torchrl.collectors  # noqa: F401

FEATURES = 5
# stand-ins for Gymnasium's spaces, which are read by their attributes
MULTI = SimpleNamespace(shape=(2,), nvec=torch.tensor([3, 4]))
BLOCKS = SimpleNamespace(shape=(2,), nvec=torch.tensor([3, 3]))
BOX = SimpleNamespace(shape=(3,), low=torch.tensor([-1.0, -2.0, 0.0]), high=torch.tensor([1.0, 2.0, 5.0]))
KINDS = {
    "categorical": {"action_space": 4},
    "blocks": {"action_space": BLOCKS},
    "multi-discrete": {"action_space": MULTI},
    "normal": {"action_space": BOX},
    "tanh-normal": {"action_space": BOX, "distribution": "tanh_normal"},
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=KINDS)
def kind(request):
    """Name of a kind of actions."""
    return request.param


@pytest.fixture(params=["shared", "layers", "separate"])
def sharing(request):
    """Parametrise what actor and critic share: the body, hidden layers too, or nothing."""
    return request.param


@pytest.fixture
def make_network():
    """Build a network for a kind of actions; without orthogonal initialisation, so that it is far from uniform."""

    def build(kind="categorical", sharing="shared", **options):
        bodies = [VectorEncoder(FEATURES, hidden_sizes=[7], activation=nn.Tanh) for _ in range(2)]
        critic_body = bodies[1] if sharing == "separate" else None
        shared = MLP(7, (8, 6), activation=nn.Tanh) if sharing == "layers" else None
        options = {**KINDS[kind], "hidden_sizes": (9,), "orthogonal": False, **options}
        return ActorCritic(bodies[0], critic_body=critic_body, shared=shared, **options)

    return build


@pytest.fixture
def make_batch():
    """Build what a network collected, with advantages and targets; old log-probabilities differ by ``drift``."""

    def build(network, *batch_shape, drift=0.3):
        observation = torch.randn(*batch_shape, FEATURES)
        with torch.no_grad():
            *parameters, value = network(observation)
            policy = network.distribution(*parameters)
            action = policy.sample()
            log_prob = policy.log_prob(action) + drift * torch.randn(batch_shape)
        return TensorDict(
            {
                "observation": observation,
                "action": action,
                "action_log_prob": log_prob,
                "state_value": value + drift * torch.randn_like(value),
                "advantage": torch.randn(*batch_shape, 1) + 0.5,
                "value_target": torch.randn(*batch_shape, 1) + 2,
            },
            batch_shape,
        )

    return build


def total(losses):
    """Return the sum of the losses among what a loss returned."""
    return losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]


def gradients(loss_module, losses):
    """Return the gradients of the sum of the losses, by name."""
    loss_module.zero_grad()
    total(losses).backward()
    return {name: parameter.grad.clone() for name, parameter in loss_module.named_parameters()}
