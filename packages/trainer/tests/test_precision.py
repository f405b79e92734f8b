"""``precision: auto``: what is measured is kept, in the run's configuration, by a resume and by a sweep."""

import itertools
from pathlib import Path

import pytest

from tesserl_configs import load_config
from tesserl_configs.diff import diff_configs
from tesserl_trainer import train
from tesserl_trainer.algorithms import precision as precision_module
from tesserl_trainer.algorithms.precision import faster_precision
from tesserl_trainer.running.run_directory import as_measured, measures_precision, run_config, with_precision
from tesserl_trainer.running.train import resume_run

pytestmark = pytest.mark.kernel_free


def clock(monkeypatch, float32, bfloat16):
    """Let passes in the two formats take so many seconds each."""
    seconds = itertools.cycle([float32, bfloat16])
    monkeypatch.setattr(precision_module, "_seconds_of_pass", lambda *_: next(seconds))


@pytest.mark.parametrize(("bfloat16", "chosen"), [(0.5, "bfloat16"), (0.96, "float32"), (3.0, "float32")])
def test_the_faster_format_is_chosen(monkeypatch, write_config, bfloat16, chosen):
    clock(monkeypatch, 1.0, bfloat16)
    config = load_config(write_config(algorithm="iqn"), ["iqn.precision=auto"])
    got, said = faster_precision(config)
    assert got == chosen
    assert said.startswith(f"iqn.precision: {chosen}; a pass of the body in bfloat16 takes {bfloat16:.2f}")


@pytest.mark.parametrize(("algorithm", "task"), [("iqn", "MinAtar/Breakout-v1"), ("ppo", "CartPole-v1")])
def test_a_pass_is_measured_for_real(write_config, algorithm, task):
    config = load_config(write_config(task, algorithm), [f"{algorithm}.precision=auto"])
    assert measures_precision(config)
    assert faster_precision(config)[0] in ("float32", "bfloat16")


def test_a_body_with_a_memory_is_measured(write_config):
    config = load_config(write_config(algorithm="ppo"), ["ppo.precision=auto", "nn.memory={kind: gru, hidden_size: 8}"])
    assert faster_precision(config)[0] in ("float32", "bfloat16")


def test_the_mask_of_a_task_is_no_input_of_the_body(write_config):
    path = write_config(algorithm="ppo")
    masked = ["environment.id=masked:tesserl-tests/Safe-v0", f"environment.module_path=[{Path(__file__).parent}]"]
    assert faster_precision(load_config(path, [*masked, "ppo.precision=auto"]))[0] in ("float32", "bfloat16")


def test_a_run_keeps_what_was_measured(monkeypatch, write_config, tmp_path, capsys):
    clock(monkeypatch, 1.0, 0.5)
    config = load_config(write_config(algorithm="ppo"), ["ppo.precision=auto"])
    run = train(config, run_dir=tmp_path / "run")
    assert "ppo.precision: bfloat16; a pass of the body" in capsys.readouterr().err
    assert run_config(run).ppo.precision == "bfloat16"
    assert diff_configs(run_config(run), as_measured(config, run_config(run))) == []
    clock(monkeypatch, 1.0, 3.0)  # a resume does not measure again
    resume_run(run, [f"total_steps={2 * config.total_steps}"])
    assert run_config(run).ppo.precision == "bfloat16"


def test_a_run_is_continued_from_python_by_the_configuration_that_began_it(monkeypatch, write_config, tmp_path):
    clock(monkeypatch, 1.0, 0.5)
    config = load_config(write_config(algorithm="ppo"), ["ppo.precision=auto"])
    run = train(config, run_dir=tmp_path / "run")
    clock(monkeypatch, 1.0, 3.0)
    train(config.model_copy(update={"total_steps": 2 * config.total_steps}), run_dir=run, resume=True)
    assert run_config(run).ppo.precision == "bfloat16"
    assert run_config(run).total_steps == 2 * config.total_steps


def test_the_run_is_that_of_the_chosen_format(monkeypatch, write_config, tmp_path):
    clock(monkeypatch, 1.0, 0.5)
    config = load_config(write_config(algorithm="ppo"), ["ppo.precision=auto"])
    measured = train(config, run_dir=tmp_path / "measured")
    said = train(with_precision(config, "bfloat16"), run_dir=tmp_path / "said")
    assert (measured / "evaluation.json").is_file()
    files = [sorted(run.glob("checkpoints/step_*/networks.safetensors")) for run in (measured, said)]
    assert files[0]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
