"""``tesserl train`` and ``tesserl eval`` as a user meets them: what they print, and their exit codes."""

import json
from pathlib import Path

import pytest

from tesserl_configs import ConfigError
from tesserl_trainer import train
from tesserl_trainer.cli import main
from tesserl_trainer.running.run_directory import run_config

pytestmark = pytest.mark.kernel_free


@pytest.fixture
def run_dir(write_config, tmp_path, capfd) -> Path:
    assert main(["train", str(write_config()), "--run-dir", str(tmp_path / "run"), "--set", "total_steps=120"]) == 0
    capfd.readouterr()
    return tmp_path / "run"


def test_training_prints_the_runs_directory_alone_on_stdout(write_config, tmp_path, capfd):
    assert main(["train", str(write_config()), "--run-dir", str(tmp_path / "run"), "--set", "total_steps=60"]) == 0
    output = capfd.readouterr()
    assert output.out == f"{tmp_path / 'run'}\n"
    assert "step 60/60" in output.err
    assert "return" in output.err


def test_eval_prints_json(run_dir, capfd):
    assert main(["eval", str(run_dir), "--episodes", "2", "--seed", "5", "--checkpoint", "latest"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert (result["episodes"], result["seed"], result["checkpoint"]) == (2, 5, "step_000000120")


def test_eval_takes_overrides(run_dir, capfd):
    assert main(["eval", str(run_dir), "--episodes", "2", "--set", "evaluation.max_episode_steps=3"]) == 0
    assert json.loads(capfd.readouterr().out)["lengths"] == [3, 3]


def test_a_resumed_run_can_be_made_longer_and_nothing_else(run_dir, capfd):
    assert main(["train", "--resume", str(run_dir), "--set", "total_steps=180"]) == 0
    assert (run_dir / "checkpoints/step_000000180").is_dir()
    said = capfd.readouterr().err
    assert "step 150/180" in said
    assert "return - " not in said  # that of the record is shown until an episode ends
    assert main(["train", "--resume", str(run_dir), "--set", "iqn.discount=0.5"]) == 2
    error = capfd.readouterr().err
    assert f"iqn.discount: expected 0.99 as in {run_dir / 'config.yaml'}, got 0.5; a resumed run" in error
    assert (
        "can only change checkpoint, early_stopping, evaluation, logging, total_steps, start a new run for the rest"
        in error
    )
    config = run_config(run_dir)
    iqn = config.iqn.model_copy(update={"discount": 0.5})
    with pytest.raises(ConfigError, match=r"iqn.discount: expected .* as in .*config.yaml, got 0.5; a resumed run can"):
        train(config.model_copy(update={"iqn": iqn}), run_dir=run_dir, resume=True)
    older = sorted((run_dir / "checkpoints").glob("step_*"))[-2]
    newest = max((run_dir / "checkpoints").glob("step_*")).name
    assert main(["train", "--resume", str(older)]) == 0
    said = capfd.readouterr().err
    assert f"removed what came after it: {newest}" in said
    assert "step 180/180" in said
    assert main(["train", "--resume", str(run_dir), "--set", "total_steps=60"]) == 2
    assert "total_steps: expected at least 180, the step of the checkpoint, got 60;" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "name either a CONFIG to train or, with --resume, a run to continue"),
        (["CONFIG", "--resume", "RUN"], 2, "name either a CONFIG to train or"),
        (["--resume", "RUN", "--run-dir", "x"], 2, "a resumed run stays where it is"),
        (["--resume", "NOWHERE"], 2, "expected a run, got no such directory"),
        (["CONFIG", "--run-dir", "RUN"], 2, "is not empty; continue the run there with --resume"),
        (["CONFIG", "--set", "iqn.num_tau=3"], 2, "did you mean num_taus"),
        (["CONFIG", "--set", "iqn.discount=1.7"], 2, "iqn.discount"),
        (["MISSING.yaml"], 2, "MISSING.yaml"),
    ],
)
def test_mistakes_are_named_and_change_nothing(run_dir, write_config, tmp_path, capfd, arguments, code, message):
    names = {"CONFIG": str(write_config()), "RUN": str(run_dir), "NOWHERE": str(tmp_path / "nowhere")}
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")}
    assert main(["train", *(names.get(argument, argument) for argument in arguments)]) == code
    error = capfd.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")} == before


def test_a_damaged_checkpoint_is_a_failure(run_dir, capfd):
    path = run_dir / "checkpoints/step_000000120/networks.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    for arguments in (["train", "--resume", str(run_dir)], ["eval", str(run_dir), "--checkpoint", "latest"]):
        assert main(arguments) == 1
        error = capfd.readouterr().err
        assert "networks.safetensors: expected" in error
        assert "Traceback" not in error


def test_a_diverged_run_is_a_failure(write_config, tmp_path, capfd):
    arguments = ["train", str(write_config()), "--run-dir", str(tmp_path / "run")]
    diverging = ("--set", "optimizer.learning_rate=1000", "--set", "nn.learning_rate_factors.heads=1e9")
    assert main([*arguments, *diverging]) == 1
    assert "the loss is not finite at step" in capfd.readouterr().err
