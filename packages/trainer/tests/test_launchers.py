"""Launchers of sweeps and searches: what is handed to them, and jobs of submitit in processes of this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tesserl_configs import load_config
from tesserl_configs.launchers import SlurmLauncher as Options
from tesserl_configs.launchers import read_launcher
from tesserl_trainer.cli import main
from tesserl_trainer.search.search import run_search
from tesserl_trainer.sweep import launchers
from tesserl_trainer.sweep import sweep as command
from tesserl_trainer.sweep.jobs import Ended, Job, SweepError
from tesserl_trainer.sweep.launching import run_jobs
from tesserl_trainer.sweep.sweep import SweepStopped, run_sweep
from tesserl_training.checkpoints.run_checkpoints import Checkpoints

from .test_search import calls as search_calls
from .test_search import search_of  # noqa: F401
from .test_stopping import ENVIRONMENT, PATIENCE, is_alive
from .test_sweep import calls, signal_when, sweep_of  # noqa: F401

pytestmark = pytest.mark.kernel_free

TRIED = read_launcher("slurm", ["cluster=local", "time_limit=60"])


class Remembering:
    """A launcher whose jobs end when they are waited for, two at a time; some must be killed."""

    def __init__(self, stubborn=()):
        self.jobs, self.acts, self.stubborn = [], [], set(stubborn)

    def submit(self, jobs):
        self.acts.append(("submit", *(job.name for job in jobs)))
        self.jobs += jobs

    def wait(self, timeout):
        ended = [job for job in self.jobs if job.name not in self.stubborn][:2]
        for job in ended:
            self.jobs.remove(job)
        return [Ended(job, 0, 1.0, stopped=False) for job in ended]

    def stop(self, job):
        self.acts.append(("stop", job.name))

    def kill(self, job):
        self.acts.append(("kill", job.name))
        self.stubborn.discard(job.name)

    def where(self, job):
        return f"place of {job.name}"


def jobs_of(*names):
    return iter([Job(name, Path(name), Path("config.yml"), 1) for name in names])


@pytest.mark.parametrize(
    ("num_parallel", "acts"),
    [
        (None, [("submit", "a", "b", "c", "d", "e")]),
        (3, [("submit", "a", "b", "c"), ("submit", "d", "e")]),
        (1, [("submit", name) for name in "abcde"]),
    ],
)
def test_jobs_are_handed_over_together_as_far_as_there_is_room(num_parallel, acts):
    launcher, jobs, ended = Remembering(), jobs_of(*"abcde"), []
    found = run_jobs(
        lambda: next(jobs, None), launcher, num_parallel=num_parallel, on_end=ended.append, on_note=pytest.fail
    )
    assert found is None
    assert launcher.acts == acts
    assert sorted(each.job.name for each in ended) == list("abcde")


def test_a_job_that_does_not_stop_is_named_and_killed_once():
    launcher, jobs, ended, notes = Remembering(stubborn="b"), jobs_of("a", "b"), [], []
    run_jobs(
        lambda: next(jobs, None),
        launcher,
        num_parallel=None,
        on_end=ended.append,
        on_note=notes.append,
        should_stop=lambda job: job.name == "b",
        stop_timeout=0.0,
    )
    assert launcher.acts == [("submit", "a", "b"), ("stop", "b"), ("kill", "b")]
    assert notes == ["b (place of b) has not stopped and is killed; log: b/train.log"]


def test_an_error_leaves_no_job_behind():
    launcher, jobs = Remembering(), jobs_of("a", "b", "c")

    def fail(ended):
        raise LookupError(ended.job.name)

    with pytest.raises(LookupError, match="a"):
        run_jobs(lambda: next(jobs, None), launcher, num_parallel=None, on_end=fail, on_note=lambda _: None)
    assert launcher.jobs == []
    assert launcher.acts[1:] == [("stop", "c")]


@pytest.mark.parametrize("kind", ["ray", "slurm"])
def test_a_missing_extra_is_one_sentence(sweep_of, tmp_path, monkeypatch, capfd, kind):  # noqa: F811
    sweep_of("a")
    module = {"ray": "ray", "slurm": "submitit"}[kind]
    monkeypatch.setitem(sys.modules, module, None)
    for name in ("sweep", "search"):
        assert main([name, str(tmp_path / "s.yaml"), "--launcher", kind, "--runs", str(tmp_path / "runs")]) == 2
        expected = f'error: --launcher {kind} needs {module}; install "tesserl-trainer[{kind}]"\n'
        assert capfd.readouterr().err == expected
    assert not (tmp_path / "runs").exists()


def test_what_cannot_be_launched_here_is_said(sweep_of, tmp_path, monkeypatch, capfd):  # noqa: F811
    sweep_of("a")
    monkeypatch.setattr(launchers.shutil, "which", lambda name: None)
    arguments = ["sweep", str(tmp_path / "s.yaml"), "--launcher", "slurm"]
    assert main(arguments) == 2
    assert "--launcher slurm: there is no sbatch on this machine; run the command where" in capfd.readouterr().err
    assert main([*arguments, "--launcher-option", "partiton=gpu"]) == 2
    assert "--launcher-option partiton: unknown key; did you mean partition?" in capfd.readouterr().err
    assert main(["search", str(tmp_path / "s.yaml"), "--launcher", "slurm", "--launcher-option", "cluster=local"]) == 2
    assert "--jobs: say how many trials train at a time" in capfd.readouterr().err


SBATCH = """#!/bin/sh
cp "$1" {place}/submitted.sh
echo "Submitted batch job 42"
"""


def test_the_options_reach_slurm(tmp_path, monkeypatch):
    from tesserl_trainer.sweep import slurm

    (tmp_path / "bin").mkdir()
    for name, text in {"sbatch": SBATCH.format(place=tmp_path), "srun": "#!/bin/sh\n"}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    given = {"partition": "gpu", "account": "lab", "qos": "long", "constraint": "a100", "time_limit": 30}
    options = Options(**given, gpus=1, memory=16, setup=("module load cuda",))
    launchers.check_launcher(options)
    launcher = slurm.SlurmLauncher(
        options, tmp_path / "s", name="tesserl-s", num_parallel=2, num_threads=3, on_note=pytest.fail
    )
    jobs = [Job(f"a/seed-{seed}", tmp_path / f"s/a/seed-{seed}", tmp_path / "a.yml", seed) for seed in range(3)]
    launcher.submit(jobs)
    lines = (tmp_path / "submitted.sh").read_text().splitlines()
    for expected in (
        *("--partition=gpu", "--account=lab", "--qos=long", "--constraint=a100", "--time=30", "--gpus-per-node=1"),
        *("--mem=16GB", "--cpus-per-task=3", "--array=0-2%2", "--signal=USR2@90", "--job-name=tesserl-s"),
    ):
        assert f"#SBATCH {expected}" in lines
    assert "module load cuda" in lines
    assert launcher.jobs == jobs
    assert json.loads((tmp_path / "s/submitit/runs/a/seed-2.json").read_text()) == {"job": "42_2"}


def test_runs_are_trained_by_jobs_and_a_failure_loses_no_other(sweep_of, tmp_path, capfd):  # noqa: F811
    with pytest.raises(SweepError, match=r"1 of 3 runs failed.*\n  failing/seed-1: exit code 1: error: it was not to"):
        run_sweep(sweep_of("failing", "a", "b", seeds=(1,)), tmp_path, num_parallel=None, launcher=TRIED)
    for name in ("a", "b"):
        assert (tmp_path / f"s/{name}/seed-1/train.log").read_text() == "begun\n"
    assert "[2/3] " in capfd.readouterr().err
    assert len(calls(tmp_path / "s")) == 3


def test_a_stopped_sweep_of_jobs_continues(sweep_of, tmp_path):  # noqa: F811
    sweep = sweep_of("waiting", seeds=(1, 2))
    signal_when([tmp_path / f"s/waiting/seed-{seed}/train.log" for seed in (1, 2)], signal.SIGTERM)
    with pytest.raises(SweepStopped, match=r"0 of 2 runs in .* finished"):
        run_sweep(sweep, tmp_path, num_parallel=None, launcher=TRIED)
    assert (tmp_path / "s/waiting/seed-2/checkpoints/latest.json").is_file()
    run_sweep(sweep, tmp_path, num_parallel=None, launcher=TRIED)
    assert ["--resume" in arguments for arguments, _ in calls(tmp_path / "s")] == [False, False, True, True]


def test_at_its_time_limit_a_job_writes_a_checkpoint_and_continues(sweep_of, tmp_path):  # noqa: F811
    launcher = read_launcher("slurm", ["cluster=local", "time_limit=1", "signal_delay=30"])  # seconds of submitit here
    run_sweep(sweep_of("waiting", seeds=(1,)), tmp_path, num_parallel=None, launcher=launcher)
    resumed = ["--resume" in arguments for arguments, _ in calls(tmp_path / "s")]
    assert resumed[0] is False
    assert resumed[-1] is True
    assert (tmp_path / "s/waiting/seed-1/evaluation.json").is_file()


KILLED = """
import sys
from pathlib import Path
from tesserl_configs.launchers import read_launcher
from tesserl_configs.sweep import load_sweep
from tesserl_trainer.sweep import jobs, sweep
jobs.COMMAND = (sys.executable, sys.argv[1])
sweep.check_networks = lambda runs, directory: None
launcher = read_launcher("slurm", ["cluster=local", "time_limit=60"])
sweep.run_sweep(load_sweep(sys.argv[2]), Path(sys.argv[3]), num_parallel=None, launcher=launcher)
"""


def test_jobs_of_a_killed_sweep_go_on_and_none_is_submitted_twice(sweep_of, tmp_path, monkeypatch):  # noqa: F811
    sweep = sweep_of("waiting", "a", seeds=(1,))
    log = tmp_path / "s/waiting/seed-1/train.log"
    script = [sys.executable, "-c", KILLED, tmp_path / "fake.py", tmp_path / "s.yaml", tmp_path]
    process = subprocess.Popen(script, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + PATIENCE
    while not (log.exists() and log.stat().st_size and len(calls(tmp_path / "s")) == 2):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    noted = tmp_path / "noted"

    def note(text):
        with noted.open("a") as file:
            file.write(f"{text}\n" * text.startswith("waiting/seed-1: waiting for job "))

    monkeypatch.setattr(command, "note_on_stderr", lambda: note)
    signal_when([noted], signal.SIGINT)  # once it waits for the job that was left
    with pytest.raises(SweepStopped):
        run_sweep(sweep, tmp_path, num_parallel=None, launcher=TRIED)
    assert sorted(Path(arguments[-1]).parent.name for arguments, _ in calls(tmp_path / "s")) == ["a", "waiting"]
    run_sweep(sweep, tmp_path, num_parallel=None, launcher=TRIED)
    assert len(calls(tmp_path / "s")) == 3
    assert "--resume" in calls(tmp_path / "s")[-1][0]


def test_the_trials_of_a_search_can_be_jobs(search_of, tmp_path):  # noqa: F811
    best = run_search(search_of(trials=3), tmp_path / "runs", num_parallel=2, launcher=TRIED)
    assert sorted(search_calls(best.parent)) == [(f"trial-{number:04d}", False) for number in range(3)]
    assert load_config(best).name == "s-best"


def test_runs_end_with_a_sweep_that_is_killed_and_the_next_one_continues_them(write_config, tmp_path, capfd):
    write_config(algorithm="ppo", **{"total_steps: 240": "total_steps: 1000000"})
    (tmp_path / "s.yaml").write_text("config: tiny.yaml\nseeds: [1]\nvariants: {a: {}}\n")
    run = tmp_path / "s/a/seed-1"
    arguments = ["sweep", str(tmp_path / "s.yaml"), "--runs", str(tmp_path)]
    started = [sys.executable, "-m", "tesserl_trainer.cli", *arguments]
    process = subprocess.Popen(started, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE
    while not (run / "checkpoints/latest.json").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    trains = json.loads((run / ".lock.owner.json").read_text())["pid"]
    process.kill()
    process.wait()
    while is_alive(trains):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "stopped by SIGTERM; continue with: tesserl train --resume" in (run / "train.log").read_text()
    step = Checkpoints(run).load("latest").step
    assert main([*arguments, "--set", f"total_steps={step + 60}"]) == 0
    assert Checkpoints(run).load("latest").step >= step + 60
