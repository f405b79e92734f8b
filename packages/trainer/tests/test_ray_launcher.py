"""Sweeps whose runs are tasks of a local Ray cluster."""

import signal

import pytest

from tesserl_configs.launchers import read_launcher
from tesserl_trainer.sweep.jobs import SweepError
from tesserl_trainer.sweep.sweep import SweepStopped, run_sweep

from .test_sweep import calls, signal_when, sweep_of  # noqa: F401

pytestmark = [pytest.mark.kernel_free, pytest.mark.ray]

RAY = read_launcher("ray")


def test_runs_are_tasks_and_a_failure_loses_no_other(sweep_of, tmp_path):  # noqa: F811
    with pytest.raises(SweepError, match=r"1 of 3 runs failed.*\n  failing/seed-1: exit code 1: error: it was not to"):
        run_sweep(sweep_of("failing", "a", "b", seeds=(1,)), tmp_path, num_parallel=2, launcher=RAY)
    for name in ("a", "b"):
        assert (tmp_path / f"s/{name}/seed-1/train.log").read_text() == "begun\n"
    assert len(calls(tmp_path / "s")) == 3
    assert max(busy for _, busy in calls(tmp_path / "s")) <= 2


def test_a_stopped_sweep_of_tasks_continues(sweep_of, tmp_path):  # noqa: F811
    sweep = sweep_of("waiting", seeds=(1, 2))
    signal_when([tmp_path / f"s/waiting/seed-{seed}/train.log" for seed in (1, 2)], signal.SIGINT)
    with pytest.raises(SweepStopped, match=r"0 of 2 runs in .* finished"):
        run_sweep(sweep, tmp_path, num_parallel=2, launcher=RAY)
    run_sweep(sweep, tmp_path, num_parallel=2, launcher=RAY)
    assert ["--resume" in arguments for arguments, _ in calls(tmp_path / "s")] == [False, False, True, True]
