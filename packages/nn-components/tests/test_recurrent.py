import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.functional import linear

from tesserl_nn_components import ConcatFusion, Conv2dHead, RecurrentBody, VectorEncoder, freeze, parameter_groups

N, T, F, D, H = 3, 11, 5, 7, 9
KINDS = pytest.mark.parametrize("kind", ["gru", "lstm"])
LAYERS = pytest.mark.parametrize("num_layers", [1, 2])


def memory(kind="gru", num_layers=1, **options):
    return RecurrentBody(VectorEncoder(F, hidden_sizes=[D]), H, kind=kind, num_layers=num_layers, **options)


def sequences(body, *, starts=0.3, num_steps=T):
    """Observations, ``is_init`` and a state, as forward takes them."""
    state = [torch.randn(N, body.num_layers, H) for _ in body.state_keys]
    return torch.randn(N, num_steps, F), torch.rand(N, num_steps, 1) < starts, *state


def step_by_step(body, observation, is_init, *state):
    features = []
    for t in range(observation.shape[1]):
        output, *state = body(observation[:, t], is_init[:, t], *state)
        features.append(output)
    return torch.stack(features, dim=1), *state


def gru_by_hand(x, h, w_x, w_h, b_x, b_h):
    reset_x, update_x, new_x = linear(x, w_x, b_x).chunk(3, -1)
    reset_h, update_h, new_h = linear(h, w_h, b_h).chunk(3, -1)
    update = torch.sigmoid(update_x + update_h)
    return (1 - update) * torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h) + update * h


def lstm_by_hand(x, h, c, w_x, w_h, b_x, b_h):
    write, keep, new, read = (linear(x, w_x, b_x) + linear(h, w_h, b_h)).chunk(4, -1)
    c = torch.sigmoid(keep) * c + torch.sigmoid(write) * torch.tanh(new)
    return torch.sigmoid(read) * torch.tanh(c), c


def test_a_step_of_a_gru_agrees_with_its_equations():
    body = memory(orthogonal=False)
    observation, _, h = sequences(body, num_steps=1)
    is_init = torch.tensor([[False], [True], [False]])
    features, after = body(observation[:, 0], is_init, h)
    expected = gru_by_hand(body.body(observation[:, 0]), h[:, 0] * ~is_init, *body.memory.parameters())
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-6)
    assert torch.equal(after, features.unsqueeze(1))


def test_a_step_of_an_lstm_of_two_layers_agrees_with_its_equations():
    body = memory("lstm", 2, orthogonal=False)
    observation, _, h, c = sequences(body, num_steps=1)
    is_init = torch.tensor([[False], [True], [False]])
    features, *after = body(observation[:, 0], is_init, h, c)
    weights = list(body.memory.parameters())
    h0, c0 = lstm_by_hand(body.body(observation[:, 0]), h[:, 0] * ~is_init, c[:, 0] * ~is_init, *weights[:4])
    h1, c1 = lstm_by_hand(h0, h[:, 1] * ~is_init, c[:, 1] * ~is_init, *weights[4:])
    torch.testing.assert_close(features, h1, rtol=0, atol=1e-6)
    torch.testing.assert_close(after, [torch.stack([h0, h1], 1), torch.stack([c0, c1], 1)], rtol=0, atol=1e-6)


@KINDS
@LAYERS
@pytest.mark.parametrize("starts", [0.0, 0.05, 0.4, 1.0])
def test_sequences_equal_steps_whatever_resets_fall_into_them(kind, num_layers, starts):
    body = memory(kind, num_layers)
    inputs = sequences(body, starts=starts)
    whole, single = body(*inputs), step_by_step(body, *inputs)
    assert [tensor.shape for tensor in whole] == [(N, T, H), *[(N, num_layers, H)] * len(body.state_keys)]
    torch.testing.assert_close(whole, single, rtol=0, atol=1e-6)


@KINDS
def test_gradients_of_sequences_equal_those_of_steps(kind):
    body = memory(kind, 2)
    observation, is_init, *state = sequences(body)
    gradients = []
    for run in (body, lambda *inputs: step_by_step(body, *inputs)):
        leaves = [tensor.clone().requires_grad_() for tensor in (observation, *state)]
        features, *after = run(leaves[0], is_init, *leaves[1:])
        loss = features.square().sum() + sum(part.sum() for part in after)
        gradients.append(torch.autograd.grad(loss, [*leaves, *body.parameters()]))
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


@KINDS
def test_no_gradient_crosses_the_start_of_an_episode(kind):
    body = memory(kind)
    observation, is_init, *state = sequences(body, starts=0.0)
    is_init[1, 4] = True
    for tensor in (observation, *state):
        tensor.requires_grad_()
    body(observation, is_init, *state)[0][1, 4:].sum().backward()
    touched = observation.grad[1].abs().sum(-1) > 0
    assert touched.tolist() == [False] * 4 + [True] * (T - 4)
    assert all(part.grad[1].abs().sum() == 0 for part in state)


@KINDS
@pytest.mark.parametrize("steps", [1, T])
def test_a_state_that_is_forgotten_may_be_anything(kind, steps):
    body = memory(kind)
    observation, is_init, *state = sequences(body, starts=1.0, num_steps=steps)
    zeros = body(observation, is_init, *body.initial_state(N))
    nans = body(observation, is_init, *(torch.full_like(part, torch.nan) for part in state))
    assert all(torch.equal(one, other) for one, other in zip(zeros, nans, strict=True))


def test_the_body_runs_once_and_the_memory_once_for_each_stretch():
    body, calls = memory(), []
    for part in (body.body, body.memory):
        part.register_forward_hook(lambda module, inputs, _: calls.append((type(module).__name__, inputs[0].shape[1])))
    observation, is_init, h = sequences(body, starts=0.0)
    is_init[:, 0] = True  # no cut: the state is zero before the whole sequence
    body(observation, is_init, h)
    is_init[0, 4] = is_init[2, 4] = is_init[1, 10] = True
    body(observation, is_init, h)
    assert calls == [("VectorEncoder", T), ("GRU", T), ("VectorEncoder", T), ("GRU", 4), ("GRU", 6), ("GRU", 1)]


@KINDS
@LAYERS
def test_weights_start_orthogonal_and_biases_at_zero(kind, num_layers):
    for name, parameter in memory(kind, num_layers).memory.named_parameters():
        if name.startswith("bias"):
            assert not parameter.any()
        else:  # more rows than columns: the columns are orthonormal
            torch.testing.assert_close(parameter.T @ parameter, torch.eye(parameter.shape[1]), rtol=0, atol=1e-5)


def test_weights_can_start_as_those_of_torch():
    torch.manual_seed(5)
    body = memory(orthogonal=False)
    torch.manual_seed(5)
    VectorEncoder(F, hidden_sizes=[D])
    expected = nn.GRU(D, H).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in body.memory.state_dict().items())


def test_the_initial_state_is_zero_and_as_wide_as_the_weights():
    body = memory("lstm", 2)
    state = body.initial_state(4)
    assert [part.shape for part in state] == [(4, 2, H)] * 2
    assert not any(part.any() for part in state)
    assert body.initial_state(4, device="meta")[0].is_meta
    assert body.to(torch.bfloat16).initial_state(4)[0].dtype == torch.bfloat16


def fused(kind="lstm"):
    vision = Conv2dHead((2, 11, 13), [3], [3], [2], hidden_sizes=6)
    return RecurrentBody(ConcatFusion(vision=vision, vector=VectorEncoder(F, hidden_sizes=[D])), H, kind=kind)


def test_a_body_of_two_senses():
    body = fused()
    assert body.in_keys == ["pixels", "observation"]
    assert body.state_keys == [("recurrent", "h"), ("recurrent", "c")]
    assert memory().state_keys == [("recurrent", "h")]
    assert body.out_features == H
    pixels = torch.randint(256, (N, T, 2, 11, 13), dtype=torch.uint8)
    observation, is_init, *state = sequences(body)
    features, h, c = body(pixels, observation, is_init, *state)
    assert features.shape == (N, T, H)
    again, *after = body(pixels[:, -1], observation[:, -1], is_init[:, -1], h, c)
    assert again.shape == (N, H)
    assert [part.shape for part in after] == [(N, 1, H)] * 2


def test_parts_are_reached_by_name():
    body = fused()
    freeze(body, ["body.vision", "memory"])
    assert {name for name, p in body.named_parameters() if p.requires_grad} == {
        "body.vector.mlp.layers.0.weight",
        "body.vector.mlp.layers.0.bias",
    }
    groups = parameter_groups(fused(), {"body.vector": 0.5, "memory": 0.1}, lr=1.0)
    assert [(group["name"], group["lr"]) for group in groups] == [("body.vector", 0.5), ("memory", 0.1), ("rest", 1.0)]


@KINDS
def test_copy_pickle_and_state_dict(kind):
    body = memory(kind, 2)
    inputs = sequences(body)
    loaded = memory(kind, 2)
    loaded.load_state_dict(body.state_dict())
    for twin in (copy.deepcopy(body), pickle.loads(pickle.dumps(body)), loaded):
        assert all(torch.equal(one, other) for one, other in zip(twin(*inputs), body(*inputs), strict=True))


@KINDS
@pytest.mark.parametrize("run", [lambda body, *inputs: body(*inputs), step_by_step], ids=["sequences", "steps"])
def test_half_precision_is_finite_and_close(kind, run):
    body = memory(kind, 2)
    inputs = sequences(body)
    expected = run(body, *inputs)
    with torch.autocast("cpu", torch.bfloat16):
        features, *state = run(body, *inputs)
    assert all(part.dtype == torch.float32 for part in state)
    torch.testing.assert_close((features.float(), *state), expected, rtol=0.05, atol=0.05)
    narrow = [tensor if tensor.dtype == torch.bool else tensor.bfloat16() for tensor in inputs]
    half = run(body.bfloat16(), *narrow)
    assert all(tensor.dtype == torch.bfloat16 for tensor in half)
    torch.testing.assert_close(tuple(tensor.float() for tensor in half), expected, rtol=0.1, atol=0.1)


@KINDS
@pytest.mark.parametrize("run", [lambda body, *inputs: body(*inputs), step_by_step], ids=["sequences", "steps"])
# Behind a graph break torch 2.13 looks at .grad of a tensor in the graph; it hides the warning, but not from "error"
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_and_eager_are_equal(kind, run):
    body = memory(kind, 2)
    compiled = torch.compile(copy.deepcopy(body), backend="aot_eager")
    for starts in (0.0, 0.3):
        inputs = sequences(body, starts=starts)
        results = run(compiled, *inputs), run(body, *inputs)
        torch.testing.assert_close(*results)
        for result in results:
            result[0].sum().backward()
    for one, other in zip(compiled.parameters(), body.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@KINDS
def test_a_step_is_exported_for_any_number_of_environments(kind):
    body = memory(kind, 2)
    observation, is_init, *state = sequences(body)
    inputs = observation[:, 0], is_init[:, 0], *state
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(body, inputs, dynamic_shapes=(({0: batch},) * len(inputs),))
    other = tuple(torch.cat([tensor, tensor.roll(1, 0)]) for tensor in inputs)
    torch.testing.assert_close(program.module()(*other), body(*other))


def test_a_memory_learns_what_cannot_be_seen():
    """The sign of the first observation is asked for six steps later."""
    body = RecurrentBody(VectorEncoder(1, hidden_sizes=[8]), 16)
    network = nn.ModuleList([body, nn.Linear(16, 1)])
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)

    def loss():
        observation = torch.randn(64, 6, 1)
        is_init = torch.zeros(64, 6, 1, dtype=torch.bool)
        is_init[:, 0] = True
        target = (observation[:, 0] > 0).float()
        observation[:, 1:] = 0
        logits = network[1](body(observation, is_init, *body.initial_state(64))[0][:, -1])
        return nn.functional.binary_cross_entropy_with_logits(logits, target)

    assert loss() > 0.5
    for _ in range(100):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss() < 0.2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"body": nn.ReLU()}, TypeError, "in_keys and out_features, got ReLU"),
        ({"kind": "rnn"}, ValueError, r"one of \('gru', 'lstm'\), got 'rnn'"),
        ({"hidden_size": 0}, ValueError, "at least 1, got 0 and 1"),
        ({"num_layers": 0}, ValueError, "at least 1, got 9 and 0"),
    ],
)
def test_bad_arguments_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        RecurrentBody(**{"body": VectorEncoder(F, hidden_sizes=[D]), "hidden_size": H, **options})


def test_tensors_that_do_not_fit_are_refused():
    body = memory()
    observation, is_init, h = sequences(body)
    with pytest.raises(ValueError, match=r"each of \['observation', 'is_init', .*'h'\)\], got 2 tensors"):
        body(observation, is_init)
    with pytest.raises(ValueError, match=r"got \(2, 3, 11\) before the data"):
        body(observation.expand(2, N, T, F), is_init.expand(2, N, T, 1), h)
    with pytest.raises(ValueError, match=r"is_init must be bool with the shape \(3, 11, 1\).*torch.float32"):
        body(observation, is_init.float(), h)
    with pytest.raises(ValueError, match=r"the shape \(3, 11, 1\) of the inputs, got torch.bool with \(3, 1\)"):
        body(observation, is_init[:, 0], h)
    with pytest.raises(
        ValueError, match=r"'h'\) must have the shape \(3, 1, 9\).*got \(1, 3, 9\); .*initial_state\(3\)"
    ):
        body(observation, is_init, h.transpose(0, 1))
