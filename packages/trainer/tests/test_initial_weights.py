"""A run that starts from the network of another one, or from parts of it."""

import shutil
from pathlib import Path

import pytest
import torch

from tesserl_configs import ConfigError, load_config
from tesserl_trainer import train
from tesserl_trainer.algorithms.initial_weights import load_initial_weights
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.cli import main
from tesserl_training.checkpoints.checkpoint import load_networks
from tesserl_training.checkpoints.run_checkpoints import Checkpoints

from .conftest import ALGORITHMS, config_text
from .test_resume import outcome

PQN = "algorithm: pqn\npqn: {num_steps: 10, num_minibatches: 1, require_layer_norm: false}\n"
NAMES = [*ALGORITHMS, "pqn"]


def text_of(algorithm: str) -> str:
    return (
        config_text("CartPole-v1", "ppo").replace(ALGORITHMS["ppo"], PQN)
        if algorithm == "pqn"
        else config_text("CartPole-v1", algorithm)
    )


def config_of(algorithm: str, directory: Path, *overrides: str):
    path = directory / f"{algorithm}.yaml"
    path.write_text(text_of(algorithm))
    return load_config(path, overrides)


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    """Return a run of an algorithm, trained once."""
    directory, runs = tmp_path_factory.mktemp("first"), {}

    def train_once(algorithm: str) -> Path:
        if algorithm not in runs:
            config = config_of(algorithm, directory, "seed=7", "total_steps=60")
            runs[algorithm] = train(config, run_dir=directory / algorithm)
        return runs[algorithm]

    return train_once


def state_of(algorithm: str, directory: Path, weights: str | None = None, *overrides: str):
    """Return the state of a new network, with the weights that a configuration names."""
    overrides = overrides if weights is None else (*overrides, f"initial_weights={weights}")
    config = config_of(algorithm, directory, *overrides)
    torch.manual_seed(3)
    network = Task(config).network()
    if weights is not None:
        load_initial_weights(network, config.initial_weights)
    return network.state_dict()


def trained(run: Path, name: str) -> torch.Tensor:
    """Return a tensor of the network that a run has trained, from its file."""
    found = {
        key: entry
        for key, entry in load_networks(Checkpoints(run).best() or Checkpoints(run).latest()).items()
        if key.endswith(name) and not key.startswith(("target_", "frozen.", "loss.reference", "reference"))
    }
    [tensor] = found.values()
    return tensor


BODY = "body.vector.mlp.layers.0.weight"


@pytest.mark.parametrize("algorithm", NAMES)
def test_a_whole_network_is_taken_from_a_run_of_each_algorithm(run_of, tmp_path, algorithm):
    state = state_of(algorithm, tmp_path, str(run_of(algorithm)))
    fresh = state_of(algorithm, tmp_path)
    for name, entry in state.items():
        torch.testing.assert_close(entry, trained(run_of(algorithm), name), rtol=0, atol=0)
    assert not torch.equal(state[BODY], fresh[BODY])


@pytest.mark.parametrize("source", NAMES)
@pytest.mark.parametrize("algorithm", ["ppo", "iqn"])
def test_an_encoder_is_taken_and_the_rest_begins_as_without_it(run_of, tmp_path, algorithm, source):
    state = state_of(algorithm, tmp_path, f"{{from: {run_of(source)}, parts: [vector]}}")
    fresh = state_of(algorithm, tmp_path)
    torch.testing.assert_close(state[BODY], trained(run_of(source), BODY), rtol=0, atol=0)
    assert state.keys() == fresh.keys()
    for name, entry in fresh.items():
        assert torch.equal(state[name], entry) is not name.startswith("body."), name


@pytest.mark.parametrize(
    ("algorithm", "parts", "prefixes"),
    [
        ("ppo", "policy", ("policy.",)),
        ("grpo", "heads", ("policy.", "value.", "shared.")),
        ("iqn", "embedding, advantage", ("embedding.", "head.")),
    ],
)
def test_each_part_has_its_own_modules(run_of, tmp_path, algorithm, parts, prefixes):
    state = state_of(algorithm, tmp_path, f"{{from: {run_of(algorithm)}, parts: [{parts}]}}")
    fresh = state_of(algorithm, tmp_path)
    changed = {name for name, entry in fresh.items() if not torch.equal(state[name], entry)}
    assert changed
    assert all(name.startswith(prefixes) for name in changed)


@pytest.mark.parametrize(
    ("parts", "overrides", "message"),
    [
        (
            "vector",
            ("nn.vector.hidden_sizes=[6]",),
            r"initial_weights\.parts: vector of .* is not as in nn: shape of body",
        ),
        (
            "vector, policy",
            ("nn.heads.hidden_sizes=[]",),
            r"parts: vector, policy of .*: .*policy\.mlp\.layers\.0\.weight",
        ),
        ("vector", ("ppo.shared_body=false",), r"missing in the file: critic_body\.vector"),
        ("vector", ("nn.vector.hidden_sizes=[]",), r"initial_weights\.parts: vector has no weights here; leave it out"),
    ],
)
def test_parts_that_do_not_fit_are_named(run_of, tmp_path, parts, overrides, message):
    with pytest.raises(ConfigError, match=message):
        state_of("ppo", tmp_path, f"{{from: {run_of('ppo')}, parts: [{parts}]}}", *overrides)


def test_a_run_that_is_not_there_is_named_with_its_key(tmp_path, capsys):
    path = tmp_path / "c.yaml"
    path.write_text(text_of("ppo") + "initial_weights: {from: nowhere, parts: [vector]}\n")
    assert main(["train", str(path), "--run-dir", str(tmp_path / "run")]) == 2
    assert "initial_weights.from: expected a run or a checkpoint of one, there is none at" in capsys.readouterr().err


def test_a_frozen_part_stays_what_was_taken_and_a_resumed_run_ends_the_same(run_of, tmp_path):
    source = shutil.copytree(run_of("ppo"), tmp_path / "source")
    config = config_of(
        "ppo", tmp_path, f"initial_weights={{from: {source}, parts: [vector]}}", "nn.freeze=[vector]", "total_steps=240"
    )
    whole = train(config, run_dir=tmp_path / "whole")
    run = train(config.model_copy(update={"total_steps": 120}), run_dir=tmp_path / "halves")
    shutil.rmtree(source)  # a run that continues reads its own checkpoint
    train(config, run_dir=run, resume=True)
    assert outcome(run) == outcome(whole)
    torch.testing.assert_close(trained(run, BODY), trained(run_of("ppo"), BODY), rtol=0, atol=0)
