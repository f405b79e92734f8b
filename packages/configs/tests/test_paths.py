"""Paths in a configuration: relative ones begin at the current directory, and are absolute once it is loaded."""

import importlib.util

import pytest
import yaml

from tesserl_configs import dump_config, load_config
from tesserl_configs.initial_weights import weights_source

BASE = {"total_steps": 4096, "environment": {"id": "CartPole-v1"}, "nn": {"vector": {"kind": "mlp"}}}
PAIRS = {"algorithm": "dpo", "pairs": {"source": {"kind": "offline", "path": "data/pairs"}}}


def load(tmp_path, more):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**BASE, **more}))
    return load_config(tmp_path / "c.yaml")


def test_relative_paths_are_absolute_in_what_a_run_keeps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load(tmp_path, {**PAIRS, "initial_weights": "../weights"})
    assert config.pairs.source.path == str(tmp_path / "data/pairs")
    assert config.initial_weights == str(tmp_path / "../weights")
    (tmp_path / "kept.yaml").write_text(dump_config(config))
    monkeypatch.chdir("/")
    assert load_config(tmp_path / "kept.yaml") == config


def test_a_home_directory_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(tmp_path, {"algorithm": "ppo", "initial_weights": "~/w"}).initial_weights == str(tmp_path / "w")
    parts = load(tmp_path, {"algorithm": "ppo", "initial_weights": {"from": "~/w", "parts": ["vector"]}})
    assert weights_source(parts.initial_weights) == (str(tmp_path / "w"), ("vector",))


@pytest.mark.parametrize("exists", [True, False])
def test_a_model_is_a_path_only_where_there_is_such_a_directory(tmp_path, monkeypatch, exists):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)  # the extra is installed
    monkeypatch.chdir(tmp_path)
    if exists:
        (tmp_path / "owner/model").mkdir(parents=True)
    vision = {"vision": {"kind": "hf", "model": "owner/model"}}
    config = load(tmp_path, {"algorithm": "ppo", "nn": vision})
    assert config.nn.vision.model == (str(tmp_path / "owner/model") if exists else "owner/model")


@pytest.mark.parametrize(
    "environment",
    [{"id": "mine:Task-v0"}, {"id": "T-v0", "imports": ["mine"]}, {"id": "T-v0", "wrappers": [{"kind": "mine:Wrap"}]}],
)
def test_modules_are_looked_for_beside_the_file_and_in_the_current_directory(tmp_path, monkeypatch, environment):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    config = load(tmp_path, {"algorithm": "ppo", "environment": environment})
    assert config.environment.module_path == (str(tmp_path), str(tmp_path / "here"))
    assert config.environment.modules == ("mine",)
    (tmp_path / "kept.yaml").write_text(dump_config(config))
    monkeypatch.chdir("/")
    assert load_config(tmp_path / "kept.yaml") == config


def test_a_module_path_that_is_given_is_kept_and_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environment = {"id": "mine:Task-v0", "module_path": ["tasks", "/elsewhere/tasks"]}
    config = load(tmp_path, {"algorithm": "ppo", "environment": environment})
    assert config.environment.module_path == (str(tmp_path / "tasks"), "/elsewhere/tasks")
    plain = load(tmp_path, {"algorithm": "ppo", "environment": {"id": "CartPole-v1"}})
    assert plain.environment.module_path == ()
