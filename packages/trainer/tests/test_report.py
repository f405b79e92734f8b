"""``tesserl report``: a run as one page that loads nothing."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from tesserl_configs import load_config
from tesserl_storage.sealed_json import read_sealed, write_sealed
from tesserl_trainer import train
from tesserl_trainer.cli import main
from tesserl_trainer.inspect import report as module

pytestmark = pytest.mark.kernel_free

RUN = """
total_steps: 64
environment: {id: CartPole-v1, num_envs: 2}
nn: {vector: {kind: mlp, hidden_sizes: [8]}}
algorithm: ppo
ppo: {num_steps: 16, num_minibatches: 2}
evaluation: {interval: 32, episodes: 1, final_episodes: 2, max_episode_steps: 12}
logging: {interval: 32, tensorboard: false}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    place = tmp_path_factory.mktemp("report")
    (place / "cart.yaml").write_text(RUN)
    return train(load_config(place / "cart.yaml"), run_dir=place / "run")


@pytest.fixture
def run(trained, tmp_path):
    """A copy of a run whose final evaluation had the returns 0 and 10."""
    copy = shutil.copytree(trained, tmp_path / "a <b>run")
    result = read_sealed(copy / "evaluation.json")
    changed = {"returns": [0.0, 10.0], "return_mean": 5.0, "return_std": 5.0, "last_return_mean": None}
    write_sealed(copy / "evaluation.json", {**result, **changed})
    return copy


class Page(HTMLParser):
    """Elements, addresses and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset")]

    def handle_data(self, data):
        self.text += data


def reported(run, capfd):
    assert main(["report", str(run)]) == 0
    assert capfd.readouterr().out == f"{run / 'report.html'}\n"
    return Page((run / "report.html").read_text(encoding="utf-8"))


def test_the_page_has_results_with_an_interval_configuration_versions_and_commands(run, capfd):
    page = reported(run, capfd)
    # all four resamples of two returns have the means 0, 5, 5 and 10
    assert "Return 5.0, 95 % interval 0.0 to 10.0" in page.text
    assert re.search(r"mean return of the last weights\s*not finite", page.text)
    assert "ppo, seed 1, 64 of 64 steps" in page.text
    assert (run / "config.yaml").read_text() in page.text
    assert f"tesserl train --resume '{run}' --set total_steps=128" in page.text
    versions = json.loads((run / "checkpoints/step_000000064/manifest.json").read_text())["versions"]
    assert all(f"{name}{value}" in page.text for name, value in versions.items())


def test_the_page_loads_nothing_and_escapes_what_files_are_called(run, capfd):
    (run / "videos").mkdir()
    (run / "videos/step_000000064-<img src=x>&amp;.mp4").write_bytes(b"film")
    page = reported(run, capfd)
    assert "step_000000064-<img src=x>&amp;.mp4" in page.text
    assert page.tags.count("img") == page.tags.count("video") == 1
    assert not {"b", "script", "link"} & set(page.tags)
    assert [address.partition(",")[0] for address in page.addresses] == [
        "data:image/svg+xml;base64",
        "data:image/svg+xml;base64",
        "data:video/mp4;base64",
    ]


def test_the_film_is_of_the_evaluated_weights_and_not_too_large(run, capfd, monkeypatch):
    (run / "videos").mkdir()
    best = read_sealed(run / "evaluation.json")["checkpoint"]
    for name in ("step_000000001-a", f"{best}-b", "step_999999999-c"):
        (run / f"videos/{name}.mp4").write_bytes(b"film")
    assert f"{best}-b.mp4" in reported(run, capfd).text
    monkeypatch.setattr(module, "LARGEST_FILM", 3)
    page = reported(run, capfd)
    assert f"The film videos/{best}-b.mp4 has 0 MiB; open it from the run's directory." in page.text
    assert "video" not in page.tags


def test_a_run_that_is_not_finished_reports_what_it_has(run, capfd):
    (run / "evaluation.json").unlink()
    text = reported(run, capfd).text
    assert re.search(r"Not finished: return [\d.]+ so far", text)
    assert re.search(r"best periodic evaluation[\d.]+ at step (32|64)", text)
    (run / "metrics.csv").unlink()
    shutil.rmtree(run / "checkpoints")
    text = reported(run, capfd).text
    assert "Not finished, not evaluated yet" in text
    assert "0 of 64 steps" in text
    assert "has recorded no metrics" in text


def test_a_damaged_record_is_one_sentence(run, capfd):
    (run / "metrics.csv").write_text("step,name,value,time\n1,a,b,c\n")
    assert main(["report", str(run)]) == 1
    assert (
        "metrics.csv: a bad line (could not convert string to float: 'b'); put the file back" in capfd.readouterr().err
    )
    assert not (run / "report.html").exists()


def test_a_report_imports_no_torch(run):
    code = (
        "import sys; from tesserl_trainer.cli import main; main(['report', sys.argv[1]]); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
