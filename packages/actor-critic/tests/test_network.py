"""The network: shapes, heads, faces, initialisation, and what may be done to it."""

import copy
import pickle

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torchrl.envs import ExplorationType, set_exploration_type

from tesserl_actor_critic import ActorCritic
from tesserl_nn_components import MLP, CategoricalHead, GaussianHead, ImpalaCNN, PostConcatFusion, VectorEncoder

from .conftest import BLOCKS, BOX, FEATURES, KINDS, MULTI

SHAPES = {  # of the parameters and of the action
    "categorical": ([(4,)], ()),
    "blocks": ([(2, 3)], (2,)),
    "multi-discrete": ([(7,)], (2,)),
    "normal": ([(3,), (3,)], (3,)),
    "tanh-normal": ([(3,), (3,)], (3,)),
}


@pytest.mark.parametrize("batch_shape", [(), (6,), (6, 11)])
def test_shapes(make_network, kind, sharing, batch_shape):
    network = make_network(kind, sharing)
    observation = torch.randn(*batch_shape, FEATURES)
    *parameters, value = network(observation)
    shapes, action_shape = SHAPES[kind]
    assert [tuple(each.shape) for each in parameters] == [(*batch_shape, *shape) for shape in shapes]
    assert value.shape == (*batch_shape, 1)
    assert network.out_keys == [*network.parameter_keys, "state_value"]
    assert len(network.out_keys) == len(parameters) + 1
    action = network.act(observation)
    assert action.shape == network.greedy(observation).shape == (*batch_shape, *action_shape)
    policy = network.distribution(*parameters)
    assert policy.log_prob(action).shape == policy.entropy().shape == batch_shape


def test_parts_alone_are_parts_of_the_whole(make_network, kind, sharing):
    network, observation = make_network(kind, sharing), torch.randn(6, FEATURES)
    *parameters, value = network(observation)
    for mine, other in zip(network.policy_parameters(observation), parameters, strict=True):
        assert torch.equal(mine, other)
    assert torch.equal(network.state_value(observation), value)


def test_a_shared_body_runs_once_and_gets_both_gradients(make_network):
    network, calls = make_network(), []
    network.body.register_forward_hook(lambda *_: calls.append(1))
    logits, value = network(torch.randn(6, FEATURES))
    assert len(calls) == 1
    weight = network.body.mlp.layers[0].weight
    parts = [torch.autograd.grad(each.sum(), weight, retain_graph=True)[0] for each in (logits.square(), value)]
    assert all(part.abs().max() > 0 for part in parts)


def test_shared_layers_stand_between_the_body_and_both_heads(make_network):
    network, observation = make_network(sharing="layers", hidden_sizes=()), torch.randn(6, FEATURES)
    logits, value = network(observation)
    features = observation
    for layer in [network.body.mlp.layers[0], network.shared.layers[0], network.shared.layers[2]]:
        features = torch.tanh(features @ layer.weight.T + layer.bias)
    for output, head in ((logits, network.policy), (value, network.value)):
        [last] = head.mlp.layers  # linear
        torch.testing.assert_close(output, features @ last.weight.T + last.bias)
    for output in (logits.square(), value):
        assert torch.autograd.grad(output.sum(), network.shared.layers[0].weight, retain_graph=True)[0].abs().max() > 0
    assert [name for name, _ in network.named_children()] == ["body", "shared", "policy", "value"]


def test_orthogonal_shared_layers_have_the_gain_of_their_activation(make_network):
    network = make_network(sharing="layers", orthogonal=True)
    for layer in (network.shared.layers[0], network.shared.layers[2]):
        rows, columns = layer.weight.shape
        gram = layer.weight @ layer.weight.T if rows <= columns else layer.weight.T @ layer.weight
        torch.testing.assert_close(gram, (5 / 3) ** 2 * torch.eye(min(rows, columns)))
        assert not layer.bias.any()


def test_separate_bodies_have_nothing_in_common(make_network):
    network = make_network(sharing="separate")
    logits, value = network(torch.randn(6, FEATURES))
    value.sum().backward()
    assert all(parameter.grad is None for part in (network.body, network.policy) for parameter in part.parameters())
    network.zero_grad()
    logits.square().sum().backward()
    assert all(
        parameter.grad is None for part in (network.critic_body, network.value) for parameter in part.parameters()
    )


def test_submodules_and_parameters_are_found_once(make_network):
    network = make_network(sharing="separate")
    assert [name for name, _ in network.named_children()] == ["body", "policy", "value", "critic_body"]
    before = list(network.state_dict())
    assert network.actor is not None
    assert network.critic is not None
    assert list(network.state_dict()) == before
    assert make_network().critic_body is None


def test_faces_write_what_the_network_computes(make_network, kind, sharing):
    network, observation = make_network(kind, sharing), torch.randn(6, FEATURES)
    *parameters, value = network(observation)
    batch = TensorDict({"observation": observation}, [6])
    with set_exploration_type(ExplorationType.RANDOM):
        network.critic(network.actor(batch))
    for key, expected in zip(network.out_keys, (*parameters, value), strict=True):
        assert torch.equal(batch[key], expected)
    log_probs = network.distribution(*parameters).log_prob(batch["action"])
    assert torch.equal(batch["action_log_prob"], log_probs)
    assert torch.equal(network.actor.get_dist(batch).log_prob(batch["action"]), log_probs)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        assert torch.equal(network.actor(batch)["action"], network.greedy(observation))
    owned = {id(parameter) for face in (network.actor, network.critic) for parameter in face.parameters()}
    assert owned == {id(parameter) for parameter in network.parameters()}


def test_pixels_and_vectors_through_a_fusion():
    vision, vector = ImpalaCNN((3, 16, 16), channels=[2, 3, 4]), VectorEncoder(5, hidden_sizes=[7])
    body = PostConcatFusion(vision=vision, vector=vector, out_features=9, d_model=8)
    network = ActorCritic(body, action_space=BLOCKS)
    assert network.in_keys == ["pixels", "observation"]
    logits, value = network(torch.randint(0, 255, (2, 11, 3, 16, 16), dtype=torch.uint8), torch.randn(2, 11, 5))
    assert (logits.shape, value.shape) == ((2, 11, 2, 3), (2, 11, 1))


def test_orthogonal_heads_and_an_untouched_body():
    body = VectorEncoder(FEATURES, hidden_sizes=[7])
    before = copy.deepcopy(body.state_dict())
    network = ActorCritic(body, action_space=4, hidden_sizes=(9,))
    assert all(torch.equal(before[name], entry) for name, entry in body.state_dict().items())
    hidden, last = [layer.weight for layer in network.policy.mlp.layers if isinstance(layer, nn.Linear)]
    torch.testing.assert_close(last @ last.T, 0.01**2 * torch.eye(4))
    torch.testing.assert_close(hidden.T @ hidden, (5 / 3) ** 2 * torch.eye(7))
    hidden, last = [layer.weight for layer in network.value.mlp.layers if isinstance(layer, nn.Linear)]
    torch.testing.assert_close(last @ last.T, torch.eye(1))
    policy = network.distribution(network.policy_parameters(torch.randn(100, FEATURES))[0])
    torch.testing.assert_close(policy.entropy(), torch.full((100,), 4.0).log(), rtol=0, atol=1e-3)


def test_given_heads_are_used_and_initialised_unless_told_otherwise():
    policy = CategoricalHead(7, 4, hidden_sizes=(9,), activation=nn.ReLU)
    value = nn.Linear(7, 1)
    body = VectorEncoder(FEATURES, hidden_sizes=[7])
    network = ActorCritic(body, action_space=4, policy_head=policy, value_head=value)
    assert network.policy is policy
    assert network.value is value
    hidden = policy.mlp.layers[0].weight
    torch.testing.assert_close(hidden.T @ hidden, 2 * torch.eye(7))  # the gain of ReLU
    before = copy.deepcopy(policy.state_dict())
    ActorCritic(body, action_space=4, policy_head=policy, value_head=value, orthogonal=False)
    assert all(torch.equal(before[name], entry) for name, entry in policy.state_dict().items())


def test_a_scale_may_depend_on_the_state():
    head = GaussianHead(7, 3, state_dependent_scale=True)
    body = VectorEncoder(FEATURES, hidden_sizes=[7])
    network = ActorCritic(body, action_space=BOX, policy_head=head, orthogonal=False)
    _, scale, _ = network(torch.randn(6, FEATURES))
    assert scale.std(dim=0).min() > 0


@pytest.mark.parametrize("change", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_copies_compute_the_same_and_share_nothing(make_network, kind, sharing, change):
    network, observation = make_network(kind, sharing), torch.randn(6, FEATURES)
    twin = change(network)
    for mine, other in zip(network(observation), twin(observation), strict=True):
        assert torch.equal(mine, other)
    addresses = [{tensor.data_ptr() for tensor in each.state_dict().values()} for each in (network, twin)]
    assert not addresses[0] & addresses[1]


def test_state_dict_goes_from_one_network_into_another(make_network, kind):
    first, second = make_network(kind, "separate"), make_network(kind, "separate")
    second.load_state_dict(first.state_dict())
    observation = torch.randn(6, FEATURES)
    for mine, other in zip(first(observation), second(observation), strict=True):
        assert torch.equal(mine, other)


def test_bounds_follow_the_network_to_another_type(make_network):
    network = make_network("tanh-normal").double()
    actor, observation = network.actor, torch.randn(6, FEATURES, dtype=torch.float64)
    assert network.act(observation).dtype == torch.float64
    assert actor(TensorDict({"observation": observation}, [6]))["action_log_prob"].dtype == torch.float64


@pytest.mark.parametrize("mode", [True, False])
def test_faces_follow_the_networks_mode(make_network, mode):
    network = make_network()
    actor = network.actor
    network.train(mode)
    inner = [module for module in actor.modules() if isinstance(module, VectorEncoder | CategoricalHead)]
    assert [module.training for module in inner] == [mode, mode]


class Bare(nn.Module):
    out_features = 3


class Remembers(VectorEncoder):
    state_keys = (("recurrent", "h"),)


def encoder(**attributes):
    body = VectorEncoder(FEATURES, hidden_sizes=[7])
    for name, value in attributes.items():
        setattr(body, name, value)
    return body


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"body": Bare()}, TypeError, 'body must have in_keys, got Bare without it; set body.in_keys, such as \\["obs'),
        ({"critic_body": Bare()}, TypeError, "body must have in_keys, got Bare"),
        (
            {"critic_body": encoder(in_keys=["state"])},
            ValueError,
            r"must have the in_keys of body \['observation'\], got",
        ),
        (
            {"body": Remembers(FEATURES, hidden_sizes=[7]), "critic_body": encoder()},
            ValueError,
            "a recurrent body must be shared by actor and critic, got a critic_body too; leave it out",
        ),
        ({"shared": torch.nn.ReLU()}, TypeError, "shared must have out_features, got ReLU without it; use an MLP"),
        ({"shared": MLP(7, 3), "critic_body": encoder()}, ValueError, "got a critic_body too; leave one of the two"),
        ({"distribution": "tanh_normal"}, ValueError, "tanh_normal needs an action space with finite bounds, got 4"),
        ({"distribution": "beta"}, ValueError, "distribution must be normal or tanh_normal, got 'beta'"),
        ({"action_space": "Discrete"}, TypeError, "action_space must be a number of actions"),
    ],
)
def test_bad_input_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        ActorCritic(**{"body": encoder(), "action_space": 4, **options})


def test_every_kind_is_covered():
    assert SHAPES.keys() == KINDS.keys()
    assert MULTI.nvec.tolist() == [3, 4]


def test_a_draw_is_that_of_the_distribution(make_network, kind):
    network = make_network(kind)
    parameters = network.policy_parameters(torch.randn(6, FEATURES))
    draws = []
    for draw in (lambda: network.draw(*parameters), lambda: network.distribution(*parameters).sample()):
        torch.manual_seed(3)
        draws.append(draw())
    assert torch.equal(*draws)
