"""Runs to and from a stand-in of the Hugging Face hub: what is pulled is what was pushed, whole, verified, and data."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tesserl_trainer.cli import main
from tesserl_trainer.export.hub import card, named_code
from tesserl_trainer.running.run_directory import run_config

from .hub_server import COMMIT, serving

pytestmark = pytest.mark.kernel_free

TOKEN = "hf_a_token_that_nobody_may_see"


@pytest.fixture
def hub():
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of CartPole."""
    place = tmp_path_factory.mktemp("hub")
    file = place / "tiny.yaml"
    file.write_text(
        "total_steps: 256\nenvironment: {id: CartPole-v1, num_envs: 2}\nnn: {vector: {kind: mlp, hidden_sizes: [4]}}\n"
        "algorithm: ppo\nevaluation: {interval: 256, episodes: 2, final_episodes: 3}\nlogging: {tensorboard: false}\n"
    )
    assert main(["train", str(file), "--run-dir", str(place / "run")]) == 0
    return place / "run"


def tesserl(hub, home, *arguments):
    """Run a command in a process of its own, with the stand-in in place of the hub."""
    environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN, "HF_HOME": str(home)}
    command = [sys.executable, "-m", "tesserl_trainer.cli", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert TOKEN not in done.stdout + done.stderr
    return done


def test_a_run_is_pushed_privately_and_pulled_whole(hub, run, tmp_path, capfd):
    pushed = tesserl(hub, tmp_path / "home", "push", run, "us/run")
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stdout.strip().endswith(COMMIT)
    kinds = (hub.created.get("private"), hub.created.get("visibility") == "private")  # by age of the library
    assert True in kinds, hub.created
    assert hub.tokens == {f"Bearer {TOKEN}"}
    data = (".json", ".yaml", ".csv", ".png", ".md", ".safetensors")
    assert {Path(name).suffix for name in hub.files} <= set(data)
    pulled = tesserl(hub, tmp_path / "home", "pull", "us/run", tmp_path / "pulled")
    assert pulled.returncode == 0, pulled.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"home", "pulled"}
    for name, content in hub.files.items():
        assert (tmp_path / "pulled" / name).read_bytes() == content
    capfd.readouterr()
    assert main(["eval", str(tmp_path / "pulled"), "--episodes", "3"]) == 0
    again = json.loads(capfd.readouterr().out)
    assert again["returns"] == json.loads((run / "evaluation.json").read_text())["returns"]
    file = run.parent / "tiny.yaml"
    warm = ["--set", f"initial_weights={tmp_path / 'pulled'}"]
    assert main(["train", str(file), "--run-dir", str(tmp_path / "warm"), *warm]) == 0


@pytest.mark.parametrize(
    ("harm", "code", "said"),
    [
        ("lost", 1, "us/run: "),
        ("damaged", 1, "SHA-256 differs from the manifest's"),
        ("edited", 1, "config.yaml: not as this run wrote it"),
    ],
)
def test_a_pull_that_fails_leaves_nothing(hub, run, tmp_path, harm, code, said):
    assert tesserl(hub, tmp_path / "home", "push", run, "us/run").returncode == 0
    [weights] = [name for name in hub.files if name.endswith("networks.safetensors")]
    if harm == "lost":
        hub.lost.add(weights)
    elif harm == "damaged":
        hub.files[weights] = hub.files[weights][:-1] + b"\1"
    else:
        hub.files["config.yaml"] = hub.files["config.yaml"].replace(b"seed: 1", b"seed: 2")
    done = tesserl(hub, tmp_path / "home", "pull", "us/run", tmp_path / "pulled")
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"home"}


def test_a_run_that_names_code_is_pulled_with_trust_alone(hub, tmp_path, monkeypatch):
    (tmp_path / "rows.py").write_text(
        "from torch import nn\nclass Rows(nn.Module):\n    in_keys, out_features = ['observation'], 4\n"
        "    def __init__(self, space):\n        super().__init__()\n        self.layer = nn.Linear(4, 4)\n"
        "    def forward(self, observation):\n        return self.layer(observation)\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = tmp_path / "own.yaml"
    file.write_text(
        "total_steps: 256\nenvironment: {id: CartPole-v1, num_envs: 2}\nnn: {kind: 'rows:Rows'}\nalgorithm: ppo\n"
        "evaluation: {interval: 256, episodes: 1, final_episodes: 1}\nlogging: {tensorboard: false}\n"
    )
    run = tmp_path / "run"
    assert main(["train", str(file), "--run-dir", str(run)]) == 0
    assert named_code(run_config(run)) == ["rows"]
    assert tesserl(hub, tmp_path / "home", "push", run, "us/run").returncode == 0
    refused = tesserl(hub, tmp_path / "home", "pull", "us/run", tmp_path / "pulled")
    assert refused.returncode == 2
    assert (
        "us/run names code that its commands would run: rows; read it, then repeat with --trust-code" in refused.stderr
    )
    assert not (tmp_path / "pulled").exists()
    taken = tesserl(hub, tmp_path / "home", "pull", "us/run", tmp_path / "pulled", "--trust-code")
    assert taken.returncode == 0, taken.stderr


def test_the_card_has_what_the_hub_shows(run):
    text = card(run, run_config(run), "us/run")
    result = json.loads((run / "evaluation.json").read_text())
    assert f"{result['return_mean']:.1f} +/- {result['return_std']:.1f}" in text
    assert "library_name: tesserl" in text
    assert "tesserl pull us/run tiny" in text


def test_a_directory_is_not_overwritten(hub, run, tmp_path):
    done = tesserl(hub, tmp_path / "home", "pull", "us/run", run)
    assert done.returncode == 2
    assert "exists, a run is not overwritten; name another directory" in done.stderr


def test_a_hub_that_is_not_there_is_one_sentence(run, tmp_path):
    class Nowhere:
        address = "http://127.0.0.1:9"

    done = tesserl(Nowhere, tmp_path / "home", "push", run, "us/run")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "us/run: " in done.stderr
