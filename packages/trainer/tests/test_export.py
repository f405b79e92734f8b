"""``tesserl export``: the exported file computes what the policy computes, or is not written."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from tesserl_trainer.cli import main
from tesserl_trainer.export import formats as exporting
from tesserl_trainer.export.export import export
from tesserl_trainer.export.formats import ExportError, largest_difference, random_inputs
from tesserl_trainer.networks.programs import QuantileProgram, WindowedMaxPool

from .exported import SENSES, robot_inputs, run_file, untrained_run

ROBOT = (*SENSES, "nn.heads={hidden_sizes: [11], dueling: true, noisy: true}", "iqn.munchausen={}")


@pytest.fixture
def make_run(write_config, tmp_path):
    """Writes the run of an untrained policy, noise drawn; returns its directory and the policy."""

    def make(environment="CartPole-v1", *overrides):
        return untrained_run(tmp_path / "run", write_config(environment), overrides)

    return make


LEAKY = ("iqn.cosine_start=1", "iqn.cosine_activation=leaky_relu", "nn.vision.pixel_range=centered")


@pytest.mark.parametrize("more", [(), LEAKY], ids=["plain", "leaky"])
@pytest.mark.parametrize("file_format", ["onnx", "pt2"])
def test_taus_are_an_input_of_any_number(make_run, file_format, more):
    run_dir, policy = make_run("CartPole-v1", *ROBOT, *more)
    result = export(run_dir, format=file_format, checkpoint="latest")
    assert result["inputs"] == {
        "pixels": {"shape": ["batch", 3, 7, 9], "dtype": "uint8"},
        "observation": {"shape": ["batch", 6], "dtype": "float32"},
        "taus": {"shape": ["batch", "num_taus"], "dtype": "float32"},
    }
    assert result["outputs"] == {
        "quantile_values": {"shape": ["batch", "num_taus", 3, 4], "dtype": "float32"},
        "action_value": {"shape": ["batch", 3, 4], "dtype": "float32"},
        "action": {"shape": ["batch", 3], "dtype": "int64"},
    }
    assert result["largest_difference"] < 1e-5
    for batch_size, num_taus in ((1, 1), (4, 3), (5, 33)):
        inputs = robot_inputs(batch_size)
        taus = torch.rand(batch_size, num_taus)
        outputs = run_file(result, {**inputs, "taus": taus})
        with torch.no_grad(), policy.greedy():
            expected = policy.network(*inputs.values(), taus)
        torch.testing.assert_close(outputs["quantile_values"], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(outputs["action_value"], expected.mean(1), atol=1e-5, rtol=1e-5)
        assert torch.equal(outputs["action"], outputs["action_value"].argmax(-1))


@pytest.mark.parametrize("file_format", ["onnx", "pt2"])
def test_fixed_taus_give_the_greedy_policy(make_run, file_format):
    run_dir, policy = make_run("CartPole-v1", *ROBOT)
    policy.num_taus = 32
    result = export(run_dir, format=file_format, taus=32, checkpoint="latest")
    assert list(result["inputs"]) == ["pixels", "observation"]
    assert list(result["outputs"]) == ["action_value", "action"]
    for batch_size in (1, 4):
        inputs = robot_inputs(batch_size)
        outputs = run_file(result, inputs)
        with torch.no_grad(), policy.greedy():
            expected, action = policy.action_value(*inputs.values()), policy.act(*inputs.values())
        torch.testing.assert_close(outputs["action_value"], expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(outputs["action"], action)


def test_an_onnx_file_names_its_inputs_and_holds_its_weights(make_run, capfd):
    run_dir, policy = make_run("MinAtar/Breakout-v1")
    assert main(["export", str(run_dir), "--format", "onnx", "--taus", "8", "--checkpoint", "latest"]) == 0
    output = capfd.readouterr()
    assert output.err == ""
    result = json.loads(output.out)
    file = Path(result["file"])
    assert [path.name for path in run_dir.iterdir() if "policy" in path.name] == ["policy.onnx"]
    session = onnxruntime.InferenceSession(file.read_bytes())  # bytes: nothing beside the file can be found
    for kind, specs in ((session.get_inputs(), result["inputs"]), (session.get_outputs(), result["outputs"])):
        assert {value.name: value.shape for value in kind} == {name: spec["shape"] for name, spec in specs.items()}
    assert [(value.name, value.type) for value in session.get_inputs()] == [("pixels", "tensor(uint8)")]
    planes = 255 * torch.randint(2, (3, 4, 10, 10), dtype=torch.uint8)
    with torch.no_grad(), policy.greedy():
        policy.num_taus = 8
        expected = policy.action_value(planes)
    torch.testing.assert_close(run_file(result, {"pixels": planes})["action_value"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("exploration_only", "scales"), [("false", {0.25: True, 1.0: False}), ("true", {0.25: False, 1.0: True})]
)
def test_risk_is_in_fixed_taus_and_not_in_given_ones(make_run, exploration_only, scales):
    risk = f"{{kind: cvar, eta: 0.25, exploration_only: {exploration_only}}}"
    run_dir, _ = make_run("CartPole-v1", f"iqn.risk={risk}")
    observation = torch.randn(4, 4)
    fixed = export(run_dir, format="pt2", taus=5, checkpoint="latest")
    free = export(run_dir, format="pt2", checkpoint="latest", output=run_dir / "free.pt2")
    midpoints = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    outputs = run_file(fixed, {"observation": observation})
    for scale, same in scales.items():
        given = run_file(free, {"observation": observation, "taus": scale * midpoints.repeat(4, 1)})
        assert torch.allclose(outputs["action_value"], given["action_value"], atol=1e-6) is same


def test_noise_leaves_nothing_in_the_file(make_run):
    run_dir, policy = make_run("CartPole-v1", "nn.heads={hidden_sizes: [11], noisy: true}")
    file = export(run_dir, format="pt2", checkpoint="latest")["file"]
    state = torch.export.load(file).state_dict
    plain = {name.replace("_mu", "") for name in policy.network.state_dict() if "sigma" not in name}
    assert {name.removeprefix("network.") for name in state} == {name for name in plain if "epsilon" not in name}


@pytest.mark.parametrize("output_size", [1, 2, 6, (3, 5)])
@pytest.mark.parametrize("size", [(6, 6), (7, 9), (4, 11)])
def test_windowed_pooling_is_adaptive_pooling(size, output_size):
    images = torch.randn(2, 3, *size)
    assert torch.equal(WindowedMaxPool(output_size)(images), nn.AdaptiveMaxPool2d(output_size)(images))


# --- the comparison ----------------------------------------------------------------------------------------------


@pytest.fixture
def program(make_run):
    _, policy = make_run()
    return QuantileProgram(policy.network, torch.tensor([0.2, 0.9]))


OBSERVATION = {"observation": {"shape": ["batch", 4], "dtype": "float32"}}


def compared(program, change):
    def exported(inputs):
        outputs = program(**inputs)
        return {**outputs, **change(outputs)}

    return largest_difference(program, exported, OBSERVATION)


def test_differences_are_absolute_below_one_and_relative_above(program):
    def shifted(outputs):
        return {"action_value": outputs["action_value"] + 0.25}

    assert compared(program, lambda outputs: {}) == 0.0
    assert compared(program, shifted) == pytest.approx(0.25)
    program.network.head.layers[-1].bias += 1000  # values near 1000
    assert compared(program, shifted) == pytest.approx(0.25e-3, rel=1e-2)


def test_a_wrong_action_differs_by_what_it_loses(program):
    def worst(outputs):
        return {"action": outputs["action_value"].argmin(-1)}

    generator = torch.Generator().manual_seed(0)
    batches = [program(**random_inputs(OBSERVATION, size, 1, generator))["action_value"] for size in (1, 2, 7)]
    assert compared(program, worst) == pytest.approx(max((batch.amax(1) - batch.amin(1)).max() for batch in batches))
    layer = program.network.head.layers[-1]
    layer.weight.zero_()
    layer.bias.fill_(0.5)  # all actions are equally good, and any choice is right
    assert compared(program, lambda outputs: {"action": 1 - outputs["action"]}) == 0.0
    assert np.isnan(compared(program, lambda outputs: {"action": outputs["action"] + 2}))


def test_other_shapes_and_dtypes_are_refused(program):
    for change in (
        lambda outputs: {"action_value": outputs["action_value"][..., :1]},
        lambda outputs: {"action": outputs["action"].int()},
        lambda outputs: {"more": outputs["action"]},
    ):
        with pytest.raises(ExportError, match="expected the outputs"):
            compared(program, change)


@pytest.mark.parametrize("error", [1.1e-4, float("nan")])
def test_a_program_that_differs_is_not_written(make_run, monkeypatch, capfd, error):
    run_dir, _ = make_run("CartPole-v1", "nn.heads.hidden_sizes=[]")
    load = exporting.load

    def wrong(*arguments):
        run = load(*arguments)
        return lambda inputs: {**(outputs := run(inputs)), "action_value": outputs["action_value"] + error}

    (run_dir / "policy.pt2").write_text("the old one")
    before = sorted(run_dir.rglob("*"))
    monkeypatch.setattr(exporting, "load", wrong)
    arguments = ["export", str(run_dir), "--format", "pt2", "--checkpoint", "latest", "--overwrite"]
    assert main(arguments) == 1
    output = capfd.readouterr()
    assert "policy.pt2 was not written: outputs of the exported program differ" in output.err
    assert "expected at most 0.0001" in output.err
    assert (output.out, "Traceback" in output.err) == ("", False)
    assert (run_dir / "policy.pt2").read_text() == "the old one"
    assert sorted(run_dir.rglob("*")) == before


# --- the command -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("algorithm", "options"), [("iqn", ["--taus", "4"]), ("ppo", [])])
def test_a_trained_run_is_exported_by_the_command(write_config, tmp_path, capfd, algorithm, options):
    run_dir, file = tmp_path / "run", tmp_path / "elsewhere.pt2"
    path = str(write_config("CartPole-v1", algorithm))
    assert main(["train", path, "--run-dir", str(run_dir), "--set", "total_steps=60"]) == 0
    capfd.readouterr()
    assert main(["export", str(run_dir), "--format", "pt2", *options, "--output", str(file)]) == 0
    output = capfd.readouterr()
    result = json.loads(output.out)
    assert (result["file"], result["checkpoint"], result["batch_sizes"]) == (str(file), "step_000000060", [1, 2, 7])
    assert 0 <= result["largest_difference"] < 1e-5
    assert output.err == ""
    assert run_file(result, {"observation": torch.zeros(2, 4)})["action"].shape == (2,)


def test_a_file_is_replaced_only_when_told(make_run, capfd):
    run_dir, _ = make_run()
    arguments = ["export", str(run_dir), "--format", "pt2", "--checkpoint", "latest"]
    assert main(arguments) == 0
    first = (run_dir / "policy.pt2").stat().st_mtime_ns
    assert main(arguments) == 2
    assert "policy.pt2 is there already; replace it with --overwrite" in capfd.readouterr().err
    assert (run_dir / "policy.pt2").stat().st_mtime_ns == first
    assert main([*arguments, "--overwrite"]) == 0
    assert (run_dir / "policy.pt2").stat().st_mtime_ns != first


def test_missing_packages_are_named_with_their_extra(make_run, monkeypatch, capfd):
    run_dir, _ = make_run()
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else found(name))
    assert main(["export", str(run_dir), "--format", "onnx", "--checkpoint", "latest"]) == 1
    assert 'format onnx needs onnxruntime; install "tesserl-trainer[onnx]"' in capfd.readouterr().err
    assert main(["export", str(run_dir), "--format", "pt2", "--checkpoint", "latest"]) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["RUN"], 2, "Missing option '--format'"),
        (["RUN", "--format", "onnx", "--taus", "0"], 2, "0 is not in the range 1<=x<="),
        (["RUN", "--format", "pt2"], 2, "no checkpoint 'best'; there are: step_000000000"),
        (["NOWHERE", "--format", "pt2"], 2, "expected a run, got no such directory"),
    ],
)
def test_mistakes_are_named(make_run, tmp_path, capfd, arguments, code, message):
    names = {"RUN": str(make_run()[0]), "NOWHERE": str(tmp_path / "nowhere")}
    assert main(["export", *(names.get(argument, argument) for argument in arguments)]) == code
    assert message in capfd.readouterr().err


def test_a_policy_that_torch_cannot_export_is_named(make_run):
    class Undecided(nn.Module):
        def forward(self, features):
            return features if features.sum() > 0 else -features

    _, policy = make_run()
    policy.network.head = nn.Sequential(Undecided(), policy.network.head)
    with pytest.raises(ExportError, match=r"cannot export this policy as pt2: .*data-dependent"):
        exporting.serialize(QuantileProgram(policy.network, torch.tensor([0.5])), OBSERVATION, "pt2")
