"""The page for a new user, docs/first-agent.md: its task and its commands, with and without a terminal."""

import json
import os
import pty
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from .hub_server import serving

PAGE = (Path(__file__).parents[3] / "docs" / "first-agent.md").read_text(encoding="utf-8")
TOKEN = "hf_a_token_that_nobody_may_see"
ANSWERS = {"init": b"lake:Lake-v0\nppo\n"}
"""Answers of a user who leaves out the options; only a terminal is asked."""


def commands() -> list[list[str]]:
    """Return the arguments of the page's commands."""
    return [shlex.split(line) for line in re.findall(r"^\$ tesserl (.+)$", PAGE, re.MULTILINE)]


def in_terminal(command: list[str], answers: bytes, **options) -> tuple[int, str]:
    """Run a command in a terminal, type the answers, and return its exit code and all that the terminal showed."""
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        while True:
            try:
                shown.append(os.read(ours, 65_536))
            except OSError:  # the last process has closed its side
                return
            if not shown[-1]:
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, **options)
    os.close(theirs)
    os.write(ours, answers)
    code = process.wait(timeout=600)
    reader.join(timeout=60)
    os.close(ours)
    return code, b"".join(shown).decode(errors="replace")


def without_terminal(command: list[str], _: bytes, **options) -> tuple[int, str]:
    """Run a command as a script does, and return its exit code and output."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, **options)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("run", [without_terminal, in_terminal])
def test_a_new_user_gets_from_a_task_to_a_shared_agent(tmp_path, run):
    (task,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "lake.py").write_text(task)
    asked = commands()
    assert [words[0] for words in asked] == ["init", "config", "observe", "train", "eval", "report", "push"]
    with serving() as hub:
        environment = {
            **os.environ, "HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home"),
            "TERM": "xterm",
        }  # fmt: skip
        for words in asked:
            answers = ANSWERS.get(words[0], b"") if run is in_terminal else b""
            given = [words[0], words[-1]] if answers else words
            command = [sys.executable, "-m", "tesserl_trainer.cli", *given]
            code, output = run(command, answers, cwd=tmp_path, env=environment)
            assert code == 0, f"{given}: {output}"
            assert TOKEN not in output
            assert ("\x1b[" in output) <= (run is in_terminal)
        files = dict(hub.files)
    result = json.loads((tmp_path / "runs/lake/evaluation.json").read_text())
    assert result["return_mean"] > -8  # -4.7 is the shortest way, -40 a random one
    videos = list((tmp_path / "runs/lake/videos").glob("*.mp4"))
    assert len(videos) == 2
    report = (tmp_path / "runs/lake/report.html").read_text(encoding="utf-8")
    assert "lake:Lake-v0" in report
    assert "data:video/mp4" in report
    assert {"README.md", "config.yaml", "evaluation.json"} <= set(files)
    assert any(name.endswith(".mp4") for name in files)
    assert (tmp_path / "seen.png").stat().st_size > 0
