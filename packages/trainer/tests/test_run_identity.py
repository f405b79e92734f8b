"""A run trusts its own files alone: what was cut short, edited, swapped or copied from another run is an error."""

import json
import re
import shutil
import sys
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from tesserl_analysis.record import read_metrics
from tesserl_configs import load_config
from tesserl_storage.errors import StorageError
from tesserl_storage.sealed_json import read_sealed, write_sealed
from tesserl_storage.whole_files import write_json
from tesserl_trainer import evaluate, train
from tesserl_trainer.cli import main
from tesserl_trainer.running.run_directory import CHANGEABLE, run_config
from tesserl_training.checkpoints import run_checkpoints as checkpoints_module
from tesserl_training.checkpoints.checkpoint import read_manifest
from tesserl_training.checkpoints.names import checkpoint_name
from tesserl_training.checkpoints.run_checkpoints import Checkpoints
from tesserl_training.checkpoints.run_identity import read_identity

from .conftest import config_text

pytestmark = pytest.mark.kernel_free

STEP, OTHER_STEP = "checkpoints/step_000000120", "checkpoints/step_000000210"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Two finished runs of PPO, of seed 1 and 2, that keep all checkpoints."""
    root = tmp_path_factory.mktemp("runs")
    (root / "tiny.yaml").write_text(config_text("CartPole-v1", "ppo").replace("keep_last: 2", "keep_last: 9"))
    for seed in (1, 2):
        train(load_config(root / "tiny.yaml", [f"seed={seed}"]), run_dir=root / f"run-{seed}")
    return root


@pytest.fixture
def run(runs, tmp_path) -> Path:
    """A copy of the first run as it was at step 210."""
    shutil.copytree(runs / "run-1", tmp_path / "run")
    cut_to(tmp_path / "run", 210)
    return tmp_path / "run"


def cut_to(run: Path, step: int) -> None:
    """Make a run one that was interrupted at a step."""
    for path in Checkpoints(run).paths():
        if path.name > checkpoint_name(step):
            shutil.rmtree(path)
    identity = read_identity(run)
    assert identity is not None
    write_json(run / "checkpoints" / "latest.json", {"checkpoint": checkpoint_name(step), "run_id": identity.run_id})
    (run / "evaluation.json").unlink()


def edited(name: str, old: str, new: str) -> Callable[[Path, Path], None]:
    def edit(run: Path, other: Path) -> None:
        text = (run / name).read_text()
        assert old in text
        (run / name).write_text(text.replace(old, new, 1))

    return edit


def cut_before(line: str) -> Callable[[Path, Path], None]:
    def cut(run: Path, other: Path) -> None:
        text = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(text[: text.index(line)])

    return cut


def swapped(name: str, source: str | None = None) -> Callable[[Path, Path], None]:
    """Replace a file or a directory by that of the other run, or by another one of the same run."""

    def swap(run: Path, other: Path) -> None:
        foreign = other / name if source is None else run / source
        if foreign.is_dir():
            shutil.rmtree(run / name)
            shutil.copytree(foreign, run / name)
        else:
            shutil.copy(foreign, run / name)

    return swap


def resealed(name: str, **changes) -> Callable[[Path, Path], None]:
    def reseal(run: Path, other: Path) -> None:
        write_sealed(run / name, read_sealed(run / name) | changes)

    return reseal


def pointing(name: str, checkpoint: str) -> Callable[[Path, Path], None]:
    def point(run: Path, other: Path) -> None:
        target = checkpoint.replace("OTHER", str(other))
        (run / "checkpoints" / name).write_text(json.dumps({"checkpoint": target}))

    return point


def without(name: str) -> Callable[[Path, Path], None]:
    return lambda run, other: (run / name).unlink()


def with_unlisted_file(run: Path, other: Path) -> None:
    (run / OTHER_STEP / "extra.safetensors").write_bytes(b"x")


CONFIG = "config.yaml: not as this run wrote it"
DAMAGES = {
    "config-cut-before-the-optimizer": (cut_before("optimizer:"), CONFIG),
    "config-cut-in-what-a-resume-may-change": (cut_before("  final_episodes:"), CONFIG),
    "config-cut-behind-what-a-resume-may-change": (cut_before("device:"), CONFIG),
    "config-edited": (edited("config.yaml", "discount: 0.99", "discount: 0.5"), CONFIG),
    "config-edited-in-what-a-resume-may-change": (edited("config.yaml", "seed: 100\n", "seed: 7\n"), CONFIG),
    "config-of-another-run": (swapped("config.yaml"), CONFIG),
    "identity-missing": (without("run.json"), "run.json: missing; put it back"),
    "identity-of-another-run": (swapped("run.json"), CONFIG),
    "identity-edited": (edited("run.json", '"run_id": "', '"run_id": "0'), "its SHA-256 is not that of its content"),
    "checkpoint-of-another-run": (
        swapped(OTHER_STEP),
        "a checkpoint of the run [0-9a-f]{16}, expected one of this run",
    ),
    "checkpoint-of-another-step": (
        swapped(OTHER_STEP, STEP),
        "the checkpoint of step 120, in the directory of step 210",
    ),
    "latest-points-out-of-the-run": (
        pointing("latest.json", f"OTHER/{OTHER_STEP}"),
        "latest.json: checkpoint: expected a name like step_000050000, got '/",
    ),
    "latest-of-another-run": (
        swapped("checkpoints/latest.json"),
        r"latest.json: of the run [0-9a-f]{16}, expected this",
    ),
    "latest-edited": (edited("checkpoints/latest.json", "step_", "stap_"), "expected a name like step_000050000"),
    "latest-cut-short": (edited("checkpoints/latest.json", "}", ""), "latest.json: cannot be read as JSON"),
    "latest-names-what-is-missing": (
        pointing("latest.json", "step_000000230"),
        "step_000000230 is missing, there are: step_000000060, ",
    ),
    "best-points-out-of-the-run": (
        pointing("best.json", f"OTHER/{OTHER_STEP}"),
        "best.json: checkpoint: expected a name like step_000050000, got '/",
    ),
    "best-of-another-run": (swapped("checkpoints/best.json"), r"best.json: of the run [0-9a-f]{16}, expected this run"),
    "manifest-without-files": (resealed(f"{OTHER_STEP}/manifest.json", files={}), "expected an entry 'networks"),
    "manifest-edited": (edited(f"{OTHER_STEP}/manifest.json", "210", "211"), "its SHA-256 is not that of its content"),
    "manifest-of-another-configuration": (
        resealed(f"{OTHER_STEP}/manifest.json", config_sha256="0" * 64),
        "made with another configuration than this run's",
    ),
    "file-that-is-not-listed": (with_unlisted_file, "extra.safetensors is not in its manifest"),
    "file-that-is-missing": (without(f"{OTHER_STEP}/state.json"), "state.json: missing; the checkpoint is incomplete"),
    "record-altered": (edited("metrics.csv", "30,", "31,"), "metrics.csv: not what the run wrote up to the checkpoint"),
}
ONLY_A_RESUME = {"file-that-is-not-listed", "file-that-is-missing", "record-altered"}
"""Damages of what playing a policy does not read."""
ONLY_EVAL = {"best-of-another-run", "best-points-out-of-the-run"}
"""Damages of what a resume does not read but writes again."""


def test_an_undamaged_run_continues_and_is_evaluated(runs, run, capfd):
    assert main(["eval", str(run), "--checkpoint", "latest", "--episodes", "1"]) == 0
    assert main(["train", "--resume", str(run)]) == 0
    final = [read_manifest(each / "checkpoints/step_000000240")["files"] for each in (run, runs / "run-1")]
    assert final[0] == final[1]


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_run_whose_files_are_not_its_own_is_refused(runs, run, capfd, damage):
    change, message = DAMAGES[damage]
    change(run, runs / "run-2")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    commands = [["train", "--resume", str(run)], ["eval", str(run), "--episodes", "1", "--checkpoint", "best"]]
    for command in commands[1 if damage in ONLY_EVAL else 0 : 1 if damage in ONLY_A_RESUME else 2]:
        assert main(command) == 1
        error = capfd.readouterr().err
        assert re.search(message, error), error
        assert "Traceback" not in error
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and not path.name.startswith(".lock")}
    assert {path: content for path, content in before.items() if not path.name.startswith(".lock")} == after


def test_export_and_collect_refuse_what_is_not_the_runs_own(runs, run, tmp_path, capfd):
    swapped(OTHER_STEP)(run, runs / "run-2")
    for command in (
        ["export", str(run), "--format", "pt2", "--checkpoint", "latest"],
        ["collect", str(run), "--out", str(tmp_path / "out"), "--episodes", "1", "--checkpoint", "latest"],
    ):
        assert main(command) == 1
        assert "a checkpoint of the run" in capfd.readouterr().err


def test_the_name_of_a_checkpoint_cannot_lead_out_of_the_run(runs, run, capfd):
    for name in (f"../../../{runs.name}/run-2/{OTHER_STEP}", str(runs / "run-2" / OTHER_STEP), "step_210", ".."):
        assert main(["eval", str(run), "--checkpoint", name]) == 2
        assert f"no checkpoint {name!r}; there are: step_000000060" in capfd.readouterr().err


def test_every_manifest_holds_the_id_of_the_run_and_the_digest_of_its_configuration(runs):
    identities = []
    for name in ("run-1", "run-2"):
        identity = read_identity(runs / name)
        assert identity is not None
        for path in Checkpoints(runs / name).paths():
            manifest = read_manifest(path)
            assert manifest["run_id"] == identity.run_id
            assert manifest["config_sha256"] == identity.config_sha256
        identities.append(identity)
    assert identities[0].run_id != identities[1].run_id
    assert identities[0].config_sha256 != identities[1].config_sha256  # the seeds differ


def test_what_a_resume_may_change_is_no_part_of_the_digest(runs, run, capfd):
    assert CHANGEABLE == ("checkpoint", "early_stopping", "evaluation", "logging", "total_steps")
    before = read_identity(run)
    changes = ["total_steps=270", "checkpoint.keep_last=3", "evaluation.episodes=1", "logging.interval=15"]
    options = [part for change in changes for part in ("--set", change)]
    assert main(["train", "--resume", str(run), *options]) == 0
    assert read_identity(run) == before
    config = run_config(run)
    assert (config.total_steps, config.checkpoint.keep_last, config.evaluation.episodes) == (270, 3, 1)
    assert main(["train", "--resume", str(run), "--set", "total_steps=300"]) == 0


def test_a_kill_between_identity_and_configuration_leaves_the_old_configuration_valid(run, monkeypatch):
    from tesserl_training.checkpoints import run_identity as identity

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    config = run_config(run, ["total_steps=300"])
    with monkeypatch.context() as patch:
        patch.setattr(identity, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            train(config, run_dir=run, resume=True)
    assert run_config(run).total_steps == 240
    train(run_config(run), run_dir=run, resume=True)


def test_a_newer_checkpoint_than_the_one_that_is_named_counts(run):
    """A kill leaves this state: the checkpoint is there, and latest.json and best.json do not name it yet."""
    pointing("latest.json", "step_000000120")(run, run)
    assert Checkpoints(run).find("latest").name == "step_000000210"
    best = read_manifest(run / OTHER_STEP)["best"]["checkpoint"]
    older = next(path.name for path in Checkpoints(run).paths() if path.name != best)
    pointing("best.json", older)(run, run)
    assert older < best
    assert Checkpoints(run).find("best").name == best
    (run / "checkpoints/latest.json").unlink()
    assert Checkpoints(run).find("latest").name == "step_000000210"


def test_a_best_checkpoint_that_is_gone_is_mentioned(run, capfd):
    best = Checkpoints(run).find("best")
    assert best.name != "step_000000210"
    shutil.rmtree(best)
    assert main(["train", "--resume", str(run)]) == 0
    assert f"warning: {best.name}, the best checkpoint until then, is not there any more" in capfd.readouterr().err


def test_a_comparison_refuses_what_a_run_did_not_write(runs, tmp_path, capfd):
    for name, old, new in (
        ("evaluation.json", '"return_mean": ', '"return_mean": 9'),
        ("config.yaml", "seed: 1", "seed: 3"),
    ):
        run = shutil.copytree(runs / "run-1", tmp_path / name)
        edited(name, old, new)(run, run)
        assert main(["compare", str(runs / "run-2"), str(run)]) == 1
        assert re.search(f"{name}: (its SHA-256 is not that|not as this run wrote it)", capfd.readouterr().err)


# --- metrics, and runs that are over ------------------------------------------------------------------------------


def test_a_run_without_metrics_continues_and_says_so(runs, run, capfd):
    (run / "metrics.csv").unlink()
    assert main(["train", "--resume", str(run)]) == 0
    assert "metrics.csv is missing; a new record begins at step 210" in capfd.readouterr().err
    assert {row[0] for row in read_metrics(run / "metrics.csv")} == {240}
    files = [read_manifest(each / "checkpoints/step_000000240")["files"] for each in (run, runs / "run-1")]
    assert files[0] == files[1]
    assert main(["train", "--resume", str(run), "--set", "total_steps=270"]) == 0  # from the new record


def test_a_finished_run_is_left_as_it_is(runs, tmp_path, capfd):
    run = shutil.copytree(runs / "run-1", tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and ".lock" not in path.name}
    assert main(["train", "--resume", str(run)]) == 0
    out, err = capfd.readouterr()
    assert out == f"{run}\n"
    assert f"already finished at step 240: {run}\n" in err
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and ".lock" not in path.name}
    assert after == before


@pytest.mark.parametrize("damage", ["missing", "altered", "foreign"])
def test_a_finished_run_without_its_evaluation_is_evaluated_again(runs, tmp_path, capfd, damage):
    run = shutil.copytree(runs / "run-1", tmp_path / "run")
    file = run / "evaluation.json"
    whole = file.read_bytes()
    if damage == "foreign":
        shutil.copy(runs / "run-2/evaluation.json", file)
    elif damage == "missing":
        file.unlink()
    else:
        file.write_bytes(whole.replace(b'"episodes": 3', b'"episodes": 4'))
    assert main(["train", "--resume", str(run)]) == 0
    assert "already finished" not in capfd.readouterr().err
    assert file.read_bytes() == whole


def test_a_finished_run_with_another_evaluation_is_evaluated_again(runs, tmp_path):
    run = shutil.copytree(runs / "run-1", tmp_path / "run")
    assert main(["train", "--resume", str(run), "--set", "evaluation.final_episodes=2"]) == 0
    assert json.loads((run / "evaluation.json").read_text())["episodes"] == 2


def test_a_checkpoint_that_is_pruned_while_it_is_read_is_looked_for_again(run, monkeypatch):
    original, removed = checkpoints_module.load_networks, []

    def prune_first(path: Path, identity):
        if not removed:
            removed.append(path.name)
            shutil.copytree(path, path.with_name("step_000000220"))
            manifest = read_sealed(path / "manifest.json") | {"step": 220}
            write_sealed(path.with_name("step_000000220") / "manifest.json", manifest)
            pointing("latest.json", "step_000000220")(run, run)
            shutil.rmtree(path)
        return original(path, identity)

    monkeypatch.setattr(checkpoints_module, "load_networks", prune_first)
    assert evaluate(run, episodes=1, checkpoint="latest")["checkpoint"] == "step_000000220"
    assert removed == ["step_000000210"]
    with pytest.raises(StorageError, match="no checkpoint 'step_000000210'"):
        evaluate(run, episodes=1, checkpoint="step_000000210")


# --- other versions, and Weights & Biases -------------------------------------------------------------------------

RECORDED = {
    "format_version": 1,
    "step": 64,
    "versions": {"python": "3.11.7", "tesserl-trainer": "0.1.1", "torch": "2.13.0+cpu", "torchrl": "0.14.1"},
    "files": {
        "environments.json": {
            "bytes": 961,
            "sha256": "5b8ffe7aee629c7d9f1c265e69ad90f4156c68f85e10c595bebfba70bd594701",
        },
        "networks.safetensors": {
            "bytes": 732,
            "sha256": "1e96b8812542375ab0b1ff8cf1556ab9aead0920e2490786e00f900abf7398b2",
        },
    },
    "replay": [],
}
"""A manifest that version 0.1 wrote, shortened."""


def test_a_run_of_version_0_1_is_refused_by_its_version(tmp_path, capfd):
    run = tmp_path / "old"
    directory = run / "checkpoints/step_000000064"
    directory.mkdir(parents=True)
    (directory / "manifest.json").write_text(json.dumps(RECORDED))
    (run / "checkpoints/latest.json").write_text('{"checkpoint": "step_000000064"}')
    (run / "config.yaml").write_text("name: old\ntotal_steps: 64\n")
    message = "expected format_version 2, got 1; Tesserl 0.1 wrote it and can read it"
    for command in (["train", "--resume", str(run)], ["eval", str(run)], ["export", str(run), "--format", "pt2"]):
        assert main(command) == 1
        errors = [line for line in capfd.readouterr().err.splitlines() if "--debug" not in line]
        assert errors == [f"error: {directory}/manifest.json: {message}"]
    (tmp_path / "new.yaml").write_text(config_text("CartPole-v1", "ppo"))
    for source in (run, directory):
        assert main(["train", str(tmp_path / "new.yaml"), "--set", f"initial_weights={source}"]) == 2
        assert message in capfd.readouterr().err


def test_every_run_has_an_id_of_its_own_at_wandb_which_a_resume_uses_again(tmp_path, monkeypatch):
    calls = []
    stub = types.ModuleType("wandb")
    stub.__spec__ = ModuleSpec("wandb", None)
    run = types.SimpleNamespace(log=lambda metrics, step: None, finish=lambda: None)
    stub.init = lambda **given: calls.append(given) or run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", stub)
    text = config_text("CartPole-v1", "ppo").replace("tensorboard: false", "tensorboard: false, wandb: true")
    (tmp_path / "tiny.yaml").write_text(text)
    config = load_config(tmp_path / "tiny.yaml", ["total_steps=60"])
    for directory in ("monday/seed-1", "tuesday/seed-1", "monday/seed-1"):
        shutil.rmtree(tmp_path / directory, ignore_errors=True)
        train(config, run_dir=tmp_path / directory)
    assert len({call["id"] for call in calls}) == 3
    assert {call["resume"] for call in calls} == {"never"}
    train(config.model_copy(update={"total_steps": 90}), run_dir=tmp_path / "monday/seed-1", resume=True)
    assert calls[3]["id"] == calls[2]["id"]
    assert calls[3]["resume"] == "allow"
