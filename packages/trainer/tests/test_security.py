"""No file runs code, but where SECURITY.md says so."""

import ast
import json
import shutil
import sys
from pathlib import Path

import gymnasium as gym
import pytest
import torch

from tesserl_trainer.cli import main

pytestmark = pytest.mark.kernel_free

ROOT = Path(__file__).parents[3]
SOURCES = sorted(ROOT.glob("packages/*/src/**/*.py"))

TASK = """
total_steps: 100
environment: {{id: "{id}", num_envs: 1}}
nn: {{vector: {{kind: mlp, hidden_sizes: [4]}}}}
algorithm: ppo
ppo: {{num_steps: 32, num_minibatches: 1}}
"""
MODEL = """
total_steps: 100
environment: {{id: CarRacing-v3, num_envs: 1}}
nn: {{vision: {{kind: hf, model: {model}, trust_remote_code: {trusted}, local_files_only: true}}}}
algorithm: ppo
ppo: {{num_steps: 32, num_minibatches: 1}}
evaluation: {{episodes: 1, final_episodes: 1, max_episode_steps: 2}}
"""


@pytest.fixture(params=["module", "registered"])
def task(request, tmp_path, monkeypatch):
    """A configuration whose task leaves a mark when its module is imported, or when it is made; and that mark."""
    mark = tmp_path / "mark"
    if request.param == "module":
        (tmp_path / "marking_task.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
        monkeypatch.syspath_prepend(tmp_path)
        environment = "marking_task:CartPole-v1"
    else:
        environment = "Marking-v0"

        def make(**kwargs):
            mark.touch()
            return gym.make("CartPole-v1", **kwargs).unwrapped

        gym.register(environment, make)
    (tmp_path / "c.yaml").write_text(TASK.format(id=environment))
    yield tmp_path / "c.yaml", mark
    sys.modules.pop("marking_task", None)
    gym.registry.pop("Marking-v0", None)


@pytest.fixture
def own_code(tmp_path, hf_models):
    """A directory of a model with code that leaves a mark when it is run, and that mark."""
    model, mark = tmp_path / "model", tmp_path / "mark"
    shutil.copytree(hf_models["vit"], model)
    (model / "own.py").write_text(
        f"open({str(mark)!r}, 'w').close()\n"
        "from transformers import ViTConfig, ViTModel\n"
        "class OwnConfig(ViTConfig):\n    model_type = 'own'\n"
        "class OwnModel(ViTModel):\n    config_class = OwnConfig\n"
    )
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}}
    (model / "config.json").write_text(json.dumps(config))
    return model, mark


@pytest.mark.parametrize("arguments", [["validate"], ["show"], ["show", "--json"], ["diff"]])
def test_looking_at_a_configuration_imports_no_task(task, arguments):
    path, mark = task
    assert main(["config", *arguments, str(path), *([str(path)] if arguments == ["diff"] else [])]) == 0
    assert not mark.exists()


@pytest.mark.parametrize("task", ["registered"], indirect=True)
def test_the_shapes_of_a_network_are_of_a_task_that_was_made(task):
    path, mark = task
    assert main(["config", "show", str(path), "--shapes"]) == 0
    assert mark.exists()


@pytest.mark.parametrize("arguments", [["validate"], ["show"], ["diff"], ["show", "--shapes"]])
def test_looking_at_a_configuration_runs_no_code_of_a_model(own_code, tmp_path, capfd, arguments):
    model, mark = own_code
    path = tmp_path / "c.yaml"
    path.write_text(MODEL.format(model=model, trusted="true"))
    command = ["config", arguments[0], str(path), *arguments[1:], *([str(path)] if arguments == ["diff"] else [])]
    shapes = arguments[-1] == "--shapes"
    assert main(command) == (2 if shapes else 0)
    assert not mark.exists()
    if shapes:
        assert "nn.vision.trust_remote_code: expected a model without code of its own" in capfd.readouterr().err


def test_the_shapes_of_a_trusted_model_without_code_are_shown(hf_models, tmp_path, capfd):
    path = tmp_path / "c.yaml"
    path.write_text(MODEL.format(model=hf_models["vit"], trusted="true"))
    assert main(["config", "show", str(path), "--shapes"]) == 0
    assert "body.vision.backbone" in capfd.readouterr().out


def test_code_of_a_model_that_is_not_trusted_is_refused_by_its_key(own_code, tmp_path, capfd):
    model, mark = own_code
    path = tmp_path / "c.yaml"
    path.write_text(MODEL.format(model=model, trusted="false"))
    assert main(["train", str(path), "--run-dir", str(tmp_path / "run")]) == 2
    assert "nn.vision: " in capfd.readouterr().err
    assert not mark.exists()


def test_a_model_whose_weights_are_pickled_is_refused_by_its_key(hf_models, tmp_path, capfd, monkeypatch):
    from safetensors.torch import load_file

    model, opened = tmp_path / "model", []
    shutil.copytree(hf_models["vit"], model)
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    monkeypatch.setattr(torch, "load", lambda file, *args, **kwargs: opened.append(file))
    path = tmp_path / "c.yaml"
    path.write_text(MODEL.format(model=model, trusted="false"))
    assert main(["train", str(path), "--run-dir", str(tmp_path / "run")]) == 2
    error = capfd.readouterr().err
    assert f"nn.vision: {model} cannot be used here: " in error
    assert "weights must be in model.safetensors" in error
    assert opened == []


UNSAFE = {
    "cloudpickle", "dill", "eval", "exec", "joblib", "marshal", "pickle", "shelve",
    "hub.load_state_dict_from_url", "jit.load", "numpy.load", "np.load", "pandas.read_pickle", "torch.load",
    "torch.export.load", "torch.jit.load", "yaml.load", "yaml.full_load", "yaml.unsafe_load",
}  # fmt: skip
"""Names whose call, or whose import, can run code that a file holds."""


def names_in(source: str):
    """Dotted names of everything that a module calls or imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names))


def test_no_source_calls_a_loader_that_can_run_code():
    assert len(SOURCES) > 100
    found = [
        (path.name, name) for path in SOURCES for name in names_in(path.read_text(encoding="utf-8")) if name in UNSAFE
    ]
    assert sorted(found) == [
        ("formats.py", "torch.export.load"),  # of the bytes that it has just made
        ("shared_memory.py", "pickle"),  # of answers that a process of the run has written into memory without a name
    ]


def test_a_loader_that_can_run_code_would_be_found():
    source = "import pickle\nimport numpy as np\nnp.load(1)\nfrom torch import load\ntorch.jit.load(2)"
    assert UNSAFE & set(names_in(source)) == {"pickle", "np.load", "torch.load", "torch.jit.load"}


def test_the_table_of_commands_lists_every_command():
    from tesserl_trainer.cli import tesserl
    from tesserl_trainer.commands.config import command as config

    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    listed = " ".join(row.split("|")[1] for row in rows)
    for name in [*tesserl.list_commands(None), *(f"config {name}" for name in config.commands)]:
        assert f"`{name}" in listed or name == "config", name
