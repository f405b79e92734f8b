"""Loggers of other projects show what ``metrics.csv`` records, and never end a training."""

import json
import secrets
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tesserl_analysis import read_metrics
from tesserl_configs import load_config
from tesserl_trainer.cli import main
from tesserl_training.loggers import LoggedRun, WandbLogger

from .conftest import config_text

pytestmark = pytest.mark.kernel_free


@pytest.fixture
def train_twice(tmp_path, capfd):
    """Train with a logger, continue the run, and return the run's directory."""

    def run(logger: str) -> Path:
        text = config_text("CartPole-v1", "ppo").replace("tensorboard: false", f"tensorboard: false, {logger}")
        (tmp_path / "tiny.yaml").write_text(text)
        path = tmp_path / "run"
        assert main(["train", str(tmp_path / "tiny.yaml"), "--set", "total_steps=60", "--run-dir", str(path)]) == 0
        assert main(["train", "--resume", str(path), "--set", "total_steps=90"]) == 0
        captured = capfd.readouterr()
        assert captured.out.splitlines() == [str(path)] * 2
        assert "warning" not in captured.err
        return path

    return run


def returns_of(path: Path) -> list[tuple[int, float]]:
    return [(step, value) for step, name, value, *_ in read_metrics(path / "metrics.csv") if name == "train/return"]


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")  # MLflow on SQLAlchemy 2.1
def test_mlflow_has_one_run_for_a_run_and_its_resume(train_twice, tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    path = train_twice("mlflow: {experiment: poles, tags: [tiny]}")
    client = MlflowClient()
    [found] = client.search_runs([client.get_experiment_by_name("poles").experiment_id])
    assert (found.info.run_name, found.info.status, found.data.tags["tiny"]) == ("tiny-run", "FINISHED", "")
    assert found.data.params["environment.id"] == "CartPole-v1"
    assert found.data.params["ppo.num_steps"] == str(load_config(path / "config.yaml").ppo.num_steps)
    history = client.get_metric_history(found.info.run_id, "train/return")
    assert sorted((metric.step, metric.value) for metric in history) == returns_of(path)


def test_trackio_has_one_run_for_a_run_and_its_resume(train_twice, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # which is read when trackio is first imported
    project = f"poles-{secrets.token_hex(4)}"  # the directory may be that of earlier tests
    from trackio import Api
    from trackio.sqlite_storage import SQLiteStorage

    path = train_twice(f"trackio: {{project: {project}}}")
    [found] = Api().runs(project)
    assert found.name.startswith("tiny-run-")
    assert found.config["environment"]["id"] == "CartPole-v1"
    rows = SQLiteStorage.get_logs(project, found.name)
    assert [(row["step"], row["train/return"]) for row in rows if "train/return" in row] == returns_of(path)


def written_by_wandb(path: Path) -> Iterator[bytes]:
    """Yield the records of a file of W&B: LevelDB's log format, blocks of 32 KiB, behind a header of 7 bytes."""
    content, at, record = path.read_bytes(), 7, b""
    while at < len(content):
        if (left := 32_768 - at % 32_768) < 7:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", content, at)
        record += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or its last part
            yield record
            record = b""


def test_wandb_has_project_tags_and_configuration_and_the_same_id_after_a_resume(train_twice, monkeypatch):
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    path = train_twice("wandb: {project: poles, entity: me, tags: [tiny, first]}")
    wandb.teardown()
    files = sorted(path.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2
    records = [Record.FromString(data) for file in files for data in written_by_wandb(file)]
    runs = [record.run for record in records if record.HasField("run")]
    assert {(run.project, run.entity, run.display_name, tuple(run.tags)) for run in runs} == {
        ("poles", "me", "tiny-run", ("tiny", "first"))
    }
    assert len({run.run_id for run in runs}) == 1
    config = {item.key: item.value_json for run in runs for item in run.config.update}
    assert '"CartPole-v1"' in config["environment"]
    shown = []
    for record in records:
        row = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
        if "train/return" in row:
            shown.append((int(row["_step"]), float(row["train/return"])))
    assert shown == returns_of(path)


def test_wandb_shows_an_evaluation_that_is_reported_late_at_the_step_of_its_weights(tmp_path, monkeypatch):
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = WandbLogger(LoggedRun("late", "late", {}, {}), tmp_path, resumed=False)
    logger.log(20, {"train/return": 1.0})
    logger.log(10, {"evaluation/return": 5.0})
    logger.log(20, {"train/loss": 2.0})
    logger.log(30, {"train/return": 3.0})
    logger.close()
    wandb.teardown()
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    rows, shown = [], []
    for record in map(Record.FromString, written_by_wandb(file)):
        row = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        rows += [{name: value for name, value in row.items() if not name.startswith("_") or name == "_step"}] * bool(
            row
        )
        shown += [(record.metric.glob_name, record.metric.step_metric)] * record.HasField("metric")
    assert rows == [
        {"train/return": 1.0, "evaluation/return": 5.0, "evaluation/step": 10, "train/loss": 2.0, "_step": 20},
        {"train/return": 3.0, "_step": 30},
    ]
    assert ("evaluation/*", "evaluation/step") in shown


def test_training_continues_without_a_login(tmp_path, monkeypatch, capfd):
    def init(**given):
        raise RuntimeError("No API key configured. Use `wandb login` to log in.")

    stub = ModuleType("wandb")
    stub.__spec__, stub.init = sys.__spec__, init
    monkeypatch.setitem(sys.modules, "wandb", stub)
    text = config_text("CartPole-v1", "ppo").replace("tensorboard: false", "tensorboard: false, wandb: true")
    (tmp_path / "tiny.yaml").write_text(text)
    assert main(["train", str(tmp_path / "tiny.yaml"), "--run-dir", str(tmp_path / "run")]) == 0
    err = capfd.readouterr().err
    assert err.count("warning: logging.wandb failed") == 1
    assert "No API key configured." in err
