"""States of other networks, tasks and optimisers, and states that no run writes: one error that says what differs."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tesserl_configs import load_config
from tesserl_storage.digests import digest
from tesserl_storage.sealed_json import read_sealed, write_sealed
from tesserl_storage.tensors import load_tensors
from tesserl_trainer import train
from tesserl_trainer.cli import main
from tesserl_training.checkpoints.run_checkpoints import Checkpoints

from .conftest import config_text

pytestmark = pytest.mark.kernel_free


@pytest.fixture(scope="module", params=["iqn", "ppo", "grpo", "dpo"])
def trained(request, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp(request.param)
    (root / "tiny.yaml").write_text(config_text("CartPole-v1", request.param))
    return train(load_config(root / "tiny.yaml", ["total_steps=90"]), run_dir=root / "run")


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def refused(command: list[str], capfd) -> str:
    """Run a command that must end with one error and return its text."""
    assert main(command) == 1
    error = capfd.readouterr().err
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if "--debug" not in line]
    assert len(lines) == 1, error
    return lines[0]


def reseal(checkpoint: Path) -> None:
    """Make all digests of a checkpoint right."""
    manifest = read_sealed(checkpoint / "manifest.json")
    manifest["files"] = {name: digest(checkpoint / name) for name in manifest["files"]}
    write_sealed(checkpoint / "manifest.json", manifest)


def with_state(run: Path, change) -> None:
    checkpoint = Checkpoints(run).paths()[-1]
    document = json.loads((checkpoint / "state.json").read_text())
    change(document)
    (checkpoint / "state.json").write_text(json.dumps(document))
    reseal(checkpoint)


RESUME = ["--set", "total_steps=1000000"]


def test_another_task_is_one_error_with_names_and_shapes(run, capfd):
    error = refused(["eval", str(run), "--episodes", "1", "--set", "environment.id=LunarLander-v3"], capfd)
    assert "its networks are not those of this configuration and task: " in error
    assert re.search(r"shape of \S+weight: \(5, 4\) in the file, \(5, 8\) in the network; ", error), error


def test_networks_of_another_shape_are_named(run, capfd):
    path = Checkpoints(run).paths()[-1] / "networks.safetensors"
    tensors = load_tensors(path)
    name = next(name for name, value in tensors.items() if value.dim() == 2)
    tensors[name] = torch.zeros(3, 3)
    save_file({key: value.clone() for key, value in tensors.items()}, path, metadata={"aliases": "{}"})
    reseal(path.parent)
    for command in (["train", "--resume", str(run), *RESUME], ["eval", str(run), "--checkpoint", "latest"]):
        error = refused(command, capfd)
        assert f"shape of {name.removeprefix('networks.')}: (3, 3) in the file, " in error


def test_networks_with_another_tensor_are_refused(run, capfd):
    path = Checkpoints(run).paths()[-1] / "networks.safetensors"
    tensors = load_tensors(path) | {"networks.surplus": torch.zeros(1)}
    save_file({key: value.clone() for key, value in tensors.items()}, path, metadata={"aliases": "{}"})
    reseal(path.parent)
    error = refused(["eval", str(run), "--checkpoint", "latest"], capfd)
    assert "unknown to the network: surplus (1,)" in error
    error = refused(["train", "--resume", str(run), *RESUME], capfd)
    assert "state.json does not name 1 of the tensors, such as networks.surplus" in error


def test_an_optimiser_of_another_shape_or_setting_is_named(run, capfd):
    path = Checkpoints(run).paths()[-1] / "optimizer.safetensors"
    tensors = load_file(path)
    name = next(name for name, value in tensors.items() if value.dim() == 2)
    whole = path.read_bytes()
    save_file({**tensors, name: torch.zeros(3, 3)}, path, metadata={"aliases": "{}"})
    reseal(path.parent)
    error = refused(["train", "--resume", str(run), *RESUME], capfd)
    assert re.search(r"the optimiser's state is that of another one: \w+ of parameter \d+: \(3, 3\), expected", error)
    path.write_bytes(whole)
    with_state(run, lambda state: state["optimizer"]["param_groups"][0].update(eps=0.5))
    error = refused(["train", "--resume", str(run), *RESUME], capfd)
    assert "eps of group 0: 0.5, expected " in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("counters"), "expected an entry 'counters'"),
        (
            lambda state: state["counters"].update(step="many"),
            "counters: step: expected a whole number from 0|counters.step: expected a whole",
        ),
        (lambda state: state.update(exact=3), "exact: expected true or false, got 3"),
        (lambda state: state["averages"].update(sums=[]), "sums: expected keys and values, got a list of 0"),
        (lambda state: state["optimizer"]["param_groups"][0].pop("lr"), "param_groups.0: expected an entry 'lr'"),
        (lambda state: state["optimizer"]["param_groups"][0].update(lr="fast"), "lr: expected a number of at least 0"),
        (lambda state: state["generators"].update(python=[]), "its state is not that of this run"),
        (lambda state: state.update(networks={"$tensor": "nowhere"}), "do not fit together: KeyError"),
    ],
    ids=["no-counters", "text", "number", "list", "no-rate", "rate", "generators", "tensor"],
)
def test_a_state_that_no_run_writes_is_refused(run, capfd, change, message):
    with_state(run, change)
    assert re.search(message, refused(["train", "--resume", str(run), *RESUME], capfd))


def test_json_that_is_nested_too_deeply_is_refused(run, capfd):
    checkpoint = Checkpoints(run).paths()[-1]
    (checkpoint / "state.json").write_text("[" * 100_000 + "]" * 100_000)
    reseal(checkpoint)
    assert "state.json: cannot be read as JSON" in refused(["train", "--resume", str(run), *RESUME], capfd)
    (checkpoint / "manifest.json").write_text('{"a":' * 100_000)
    assert "manifest.json: cannot be read as JSON" in refused(["eval", str(run)], capfd)
