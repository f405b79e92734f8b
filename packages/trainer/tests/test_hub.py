"""Runs to and from a stand-in of the Hugging Face hub: what is pulled is what was pushed, whole, verified, and data."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tesserl_trainer.cli import main
from tesserl_trainer.export.hub import card, named_code
from tesserl_trainer.running.run_directory import run_config

pytestmark = pytest.mark.kernel_free

TOKEN = "hf_a_token_that_nobody_may_see"
COMMIT = "c" * 40


class Hub(BaseHTTPRequestHandler):
    """The few addresses of the hub's HTTP interface that uploading and downloading ask for."""

    def do_POST(self):
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.path == "/api/repos/create":
            self.server.created = json.loads(content)
            self.answer({"url": f"{self.server.address}/us/run"})
        elif "/preupload/" in self.path:
            names = [each["path"] for each in json.loads(content)["files"]]
            self.answer({"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]})
        elif "/commit/" in self.path:
            for line in map(json.loads, content.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer({"commitUrl": f"{self.server.address}/us/run/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self.answer({"errors": [], "warnings": []})

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if found := re.search(r"/resolve/[^/]+/(.+)$", self.path):
            content = self.server.files.get(found[1])
            if content is None or found[1] in self.server.lost:
                return self.answer({"error": "Entry not found"}, 404)
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
            return self.answer(content, headers=headers)
        if "/tree/" in self.path:
            files = self.server.files.items()
            return self.answer([{"type": "file", "path": k, "size": len(v), "oid": "0" * 40} for k, v in files])
        siblings = [{"rfilename": name} for name in self.server.files]
        return self.answer({"id": "us/run", "sha": COMMIT, "siblings": siblings, "private": True})

    def answer(self, content, code=200, headers=None):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.files, server.lost, server.tokens, server.created = {}, set(), set(), None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


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
