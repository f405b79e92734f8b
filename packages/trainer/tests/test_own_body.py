"""Bodies of a user's own module: named in a file, put below every algorithm's heads, frozen, resumed and exported."""

import importlib
import json
import sys

import pytest
import torch

from tesserl_configs import ConfigError, load_config
from tesserl_trainer.algorithms.task import Task, build_network
from tesserl_trainer.cli import main
from tesserl_trainer.running.train import train

pytestmark = pytest.mark.kernel_free

BODY = """\
import torch
from torch import nn

class Rows(nn.Module):
    def __init__(self, observation_space, width=8):
        super().__init__()
        self.in_keys = ["observation"]
        self.out_features = width
        self.layer = nn.Linear(*observation_space["observation"].shape, width)
    def forward(self, observation):
        return torch.tanh(self.layer(observation))

def flat(observation_space):
    body = Rows(observation_space)
    body.out_features = 9
    return body

def pictures(observation_space):
    body = Rows(observation_space)
    body.in_keys = ["pixels"]
    return body

def function(observation_space):
    return torch.tanh

class Bare(nn.Module):
    def __init__(self, observation_space):
        super().__init__()
"""
RUN = """\
total_steps: 256
environment: {{id: CartPole-v1, num_envs: 2}}
nn: {{kind: "rows:Rows", kwargs: {{width: 6}}, heads: {{hidden_sizes: [8]}}}}
algorithm: {algorithm}
evaluation: {{interval: 256, episodes: 2, final_episodes: 2, num_envs: 2, max_episode_steps: 20}}
logging: {{tensorboard: false}}
"""
OPTIONS = {
    "ppo": ["ppo.num_steps=16", "ppo.num_minibatches=2"],
    "iqn": ["replay.warmup_steps=16", "iqn.batch_size=8"],
    "grpo": ["grpo.num_groups=2", "grpo.group_size=2"],
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory with bodies and no configuration yet; what is imported in this process is forgotten."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "rows", None)  # removed again at the end
    del sys.modules["rows"]
    (tmp_path / "rows.py").write_text(BODY)
    return tmp_path


def written(place, algorithm="ppo"):
    file = place / "run.yaml"
    file.write_text(RUN.format(algorithm=algorithm))
    return file


def network_of(file, *overrides):
    return Task(load_config(file, overrides)).network()


@pytest.mark.parametrize("algorithm", OPTIONS)
def test_a_body_of_the_users_trains_resumes_and_is_evaluated(place, capfd, algorithm):
    file, run = written(place, algorithm), place / "run"
    chosen = [part for option in OPTIONS[algorithm] for part in ("--set", option)]
    assert main(["train", str(file), "--run-dir", str(run), *chosen]) == 0, capfd.readouterr().err
    assert main(["train", "--resume", str(run), "--set", "total_steps=600"]) == 0, capfd.readouterr().err
    capfd.readouterr()
    assert main(["eval", str(run), "--episodes", "2"]) == 0
    assert json.loads(capfd.readouterr().out)["episodes"] == 2
    assert load_config(run / "config.yaml").nn.body == "rows:Rows"


def test_the_policy_and_the_value_have_a_body_each_where_they_share_none(place):
    network = network_of(written(place), "ppo.shared_body=false")
    assert network.body is not network.critic_body
    assert [type(body).__name__ for body in (network.body, network.critic_body)] == ["Rows", "Rows"]
    assert network.body.layer.out_features == 6


@pytest.mark.parametrize("override", ["nn.freeze=[body]", "nn.freeze=[memory]"])
def test_a_body_and_a_memory_behind_it_are_frozen_by_name(place, override):
    network = network_of(written(place), override, "nn.memory={kind: gru, hidden_size: 4}", "ppo.num_minibatches=2")
    frozen = {name.split(".layer")[0] for name, each in network.named_parameters() if not each.requires_grad}
    expected = {"body.body"} if "body" in override else {"body.memory"}
    assert {".".join(name.split(".")[:2]) for name in frozen} == expected


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["nn.kind=rows:Columns"], "nn.body: rows has no Columns; correct the name"),
        (["nn.kind=no_rows:Rows"], "nn.body: there is no module no_rows"),
        (["nn.kwargs={height: 3}"], "nn.body: rows:Rows: TypeError: Rows.__init__"),
        (["nn.kind=rows:function", "nn.kwargs={}"], "nn.body: rows:function: TypeError: expected an nn.Module, got"),
        (["nn.kind=rows:Bare", "nn.kwargs={}"], "nn.body: rows:Bare: TypeError: body must have in_keys"),
        (["nn.kind=rows:pictures", "nn.kwargs={}"], "expected in_keys among ['observation'], got ['pixels']"),
        (["nn.kind=rows:flat", "nn.kwargs={}"], "expected features of shape (2, 9) for two observations, got (2, 8)"),
        (["nn.vector={kind: mlp}"], "nn.vector: rows:Rows takes its place; remove the block, or nn.body"),
        (["nn.freeze=[vision]"], "nn.freeze.0: this network has no part vision; parts: body, heads, policy, value"),
    ],
)
def test_a_wrong_body_is_an_error_that_names_the_key(place, overrides, said):
    with pytest.raises(ConfigError) as caught:
        network_of(written(place), *overrides)
    assert said in str(caught.value)


def test_arguments_without_a_body_are_refused(place):
    with pytest.raises(ConfigError, match=r"nn\.kwargs: are the arguments of nn\.body, which is null"):
        load_config(written(place), ["nn={vector: {kind: mlp}, kwargs: {width: 3}}"])


def test_looking_at_a_file_imports_no_body(place):
    (place / "rows.py").write_text("raise SystemExit('imported')")
    for command in ("validate", "show"):
        assert main(["config", command, str(written(place))]) == 0


def test_an_exported_policy_holds_the_body(place, capfd):
    file, run = written(place), place / "run"
    assert main(["train", str(file), "--run-dir", str(run)]) == 0
    export = ["export", str(run), "--output", str(place / "policy.pt2"), "--format", "pt2"]
    assert main(export) == 0, capfd.readouterr().err
    assert torch.export.load(place / "policy.pt2").module() is not None


def test_a_body_is_given_from_python_and_the_run_goes_on_by_its_name(place, monkeypatch, capfd):
    monkeypatch.syspath_prepend(place)
    rows = importlib.import_module("rows")
    file = written(place)
    file.write_text(
        file.read_text().replace('kind: "rows:Rows"', "vector: {kind: mlp}").replace(", kwargs: {width: 6}", "")
    )
    config = load_config(file)
    network = build_network(config, *Task(config).spaces, body=rows.Rows)
    assert type(network.body).__name__ == "Rows"
    run = train(config, run_dir=place / "run", body=rows.Rows)
    assert load_config(run / "config.yaml").nn.body == "rows:Rows"
    assert main(["train", "--resume", str(run), "--set", "total_steps=512"]) == 0, capfd.readouterr().err


def test_a_body_without_a_name_is_refused(place):
    config = load_config(written(place))
    with pytest.raises(ConfigError, match="body: expected a function or class at the top level of a module, got <func"):
        train(config, run_dir=place / "run", body=lambda space: None)
    assert not (place / "run").exists()
