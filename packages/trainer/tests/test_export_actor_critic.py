"""``tesserl export`` of policies with a value: distributions, bounds, memory."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from tesserl_trainer.cli import main
from tesserl_trainer.export.export import export
from tesserl_trainer.export.formats import largest_difference, load, random_inputs, serialize
from tesserl_trainer.networks.programs import ActorCriticProgram

from .exported import ACTIONS, SENSES, robot_inputs, run_file, untrained_run

POLICIES = {
    "single": (["single"], {"action": [], "logits": [4]}),
    "blocks": (["blocks", "ppo.shared_body=false"], {"action": [3], "logits": [3, 4]}),
    "shared layers": (
        ["blocks", "nn.heads={hidden_sizes: [], shared_hidden_sizes: [9, 7]}"],
        {"action": [3], "logits": [3, 4]},
    ),
    "choices": (["choices"], {"action": [3], "logits": [10]}),
    "normal": (["real"], {"action": [2], "loc": [2], "scale": [2]}),
    "tanh": (["real", "ppo.distribution={kind: tanh_normal}"], {"action": [2], "loc": [2], "scale": [2]}),
    "unbounded": (["unbounded"], {"action": [2], "loc": [2], "scale": [2]}),
}


@pytest.fixture
def make_run(write_config, tmp_path):
    """Writes the run of an untrained policy; returns its directory and the policy."""

    def make(environment="CartPole-v1", *overrides):
        return untrained_run(tmp_path / "run", write_config(environment, "ppo"), overrides)

    return make


@pytest.mark.parametrize("file_format", ["onnx", "pt2"])
@pytest.mark.parametrize("name", POLICIES)
def test_an_actor_critic_acts_in_the_file_as_in_the_task(make_run, name, file_format):
    (actions, *overrides), shapes = POLICIES[name]
    kwargs = f"environment.kwargs={{actions: {actions}}}"
    run_dir, policy = make_run("Pendulum-v1", *SENSES, kwargs, *overrides)
    result = export(run_dir, format=file_format, checkpoint="latest")
    assert list(result["inputs"]) == ["pixels", "observation"]
    outputs = {**shapes, "state_value": [1]}
    assert {key: spec["shape"] for key, spec in result["outputs"].items()} == {
        key: ["batch", *shape] for key, shape in outputs.items()
    }
    assert result["largest_difference"] < 1e-5
    space = ACTIONS[actions]
    for batch_size in (1, 64):
        inputs = robot_inputs(batch_size)
        got = run_file(result, inputs)
        with torch.no_grad(), policy.greedy() as greedy:
            expected = dict(zip(policy.network.out_keys, policy.network(*inputs.values()), strict=True))
            action = greedy.act(*inputs.values())
        if isinstance(space, spaces.Box):
            action = action.clamp(*(torch.from_numpy(bound) for bound in (space.low, space.high)))
        torch.testing.assert_close(got, {**expected, "action": action}, atol=1e-4, rtol=1e-5)
        assert {key: str(value.dtype) for key, value in got.items()} == {
            key: f"torch.{spec['dtype']}" for key, spec in result["outputs"].items()
        }
    assert all(space.contains(one) for one in got["action"].numpy())
    if name == "normal":
        assert (got["loc"] != got["action"]).any()  # bounds were met


@pytest.mark.parametrize("file_format", ["onnx", "pt2"])
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_a_memory_goes_in_and_comes_out(make_run, kind, file_format):
    memory = f"nn.memory={{kind: {kind}, hidden_size: 7, num_layers: 2}}"
    run_dir, policy = make_run("CartPole-v1", memory, "ppo.num_minibatches=1")
    result = export(run_dir, format=file_format, checkpoint="latest")
    state = {"gru": ["recurrent_h"], "lstm": ["recurrent_h", "recurrent_c"]}[kind]
    spec = {"shape": ["batch", 2, 7], "dtype": "float32"}
    assert result["inputs"] == {
        "observation": {"shape": ["batch", 4], "dtype": "float32"},
        "is_init": {"shape": ["batch", 1], "dtype": "bool"},
        **dict.fromkeys(state, spec),
    }
    assert list(result["outputs"]) == ["action", "logits", "state_value", *(f"next_{name}" for name in state)]
    assert result["outputs"]["next_recurrent_h"] == spec
    assert result["largest_difference"] < 1e-5
    inputs = {name: torch.full((3, 2, 7), 9.0) for name in state}  # of no importance where an episode begins
    starts = torch.tensor([[1, 1, 1], [0, 0, 0], [0, 1, 0], [0, 0, 0]], dtype=torch.bool)
    with policy.greedy() as greedy:
        for started in starts:
            observation = torch.randn(3, 4)
            greedy.start(started.numpy())
            action = greedy.act(observation)
            outputs = run_file(result, {"observation": observation, "is_init": started.unsqueeze(1), **inputs})
            inputs = {name: outputs[f"next_{name}"] for name in state}
            assert torch.equal(outputs["action"], action)
            for new, expected in zip(inputs.values(), greedy.memory.read(observation)[1], strict=True):
                torch.testing.assert_close(new, expected, atol=1e-6, rtol=1e-5)


def test_statistics_of_observations_are_in_the_file_and_those_of_rewards_are_not(make_run):
    running = "nn.vector={kind: mlp, hidden_sizes: [8], normalization: {kind: running}}"
    run_dir, policy = make_run("CartPole-v1", running, "ppo.reward_scaling={kind: running}")
    file = export(run_dir, format="pt2", checkpoint="latest")["file"]
    state = torch.export.load(file).state_dict
    assert {name.removeprefix("network.") for name in state} == set(policy.network.state_dict())
    assert torch.equal(state["network.body.vector.normalizer.mean"], policy.network.body.vector.normalizer.mean)


@pytest.mark.parametrize("shared", ["[]", "[9]"])
@pytest.mark.parametrize("memory", ["none", "gru"])
def test_a_critic_that_was_not_trained_is_left_out(make_run, memory, shared):
    critic = f"ppo.shared_body={str(memory != 'none' or shared != '[]').lower()}"
    layers = f"nn.heads.shared_hidden_sizes={shared}"
    _, policy = make_run("CartPole-v1", f"nn.memory={{kind: {memory}}}", critic, layers, "ppo.num_minibatches=1")
    whole, actor = ActorCriticProgram(policy.network), ActorCriticProgram(policy.network, has_value=False)
    inputs = {"observation": {"shape": ["batch", 4], "dtype": "float32"}, **actor.more_inputs()}
    given = random_inputs(inputs, 5, 1, torch.Generator().manual_seed(0))
    outputs = actor(**given)
    assert outputs.keys() == actor.specs().keys() == whole.specs().keys() - {"state_value"}
    assert all(torch.equal(value, whole(**given)[name]) for name, value in outputs.items())
    content = serialize(actor, inputs, "pt2")
    assert largest_difference(actor, load(content, "pt2"), inputs) < 1e-5
    assert not any("value" in name or "critic" in name for name, _ in actor.named_parameters())


def test_wrong_choices_of_different_sizes_are_seen(make_run):
    _, policy = make_run("Pendulum-v1", *SENSES, "environment.kwargs={actions: choices}")
    program = ActorCriticProgram(policy.network)
    inputs = {
        "pixels": {"shape": ["batch", 3, 7, 9], "dtype": "uint8"},
        "observation": {"shape": ["batch", 6], "dtype": "float32"},
    }

    def difference(change):
        return largest_difference(program, lambda given: {**program(**given), **change(program(**given))}, inputs)

    def worst(outputs):
        return {"action": torch.stack([part.argmin(-1) for part in outputs["logits"].split([2, 5, 3], -1)], -1)}

    assert difference(lambda outputs: {}) == 0.0
    assert difference(worst) > 0.1
    assert np.isnan(difference(lambda outputs: {"action": outputs["action"] + torch.tensor([2, 0, 0])}))


def test_taus_are_refused_where_there_are_none(make_run, capfd):
    run_dir, _ = make_run("CartPole-v1")
    arguments = ["export", str(run_dir), "--format", "pt2", "--checkpoint", "latest", "--taus", "8"]
    assert main(arguments) == 2
    assert "--taus is for the quantile networks of iqn, got it for a policy of ppo" in capfd.readouterr().err
    assert main(arguments[:-2]) == 0
