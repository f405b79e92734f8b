"""``tesserl sweep``: what is started, in what order, what is said of it, and what is left when it is stopped."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from tesserl_configs import load_config
from tesserl_configs.sweep import load_sweep
from tesserl_storage.locks import InUseError, locked
from tesserl_trainer.cli import main
from tesserl_trainer.sweep import jobs, launchers, processes
from tesserl_trainer.sweep.jobs import SweepError
from tesserl_trainer.sweep.launchers import default_parallel
from tesserl_trainer.sweep.sweep import SweepStopped, run_sweep

pytestmark = pytest.mark.kernel_free

CONFIGS = Path(__file__).parents[3] / "configs"

FAKE = '''
"""Stands for ``tesserl``: leaves what a run leaves, says what it was asked; fails or waits where its name says so."""
import json, os, signal, sys, time
from pathlib import Path

def stop(signum, frame):
    if "stuck" not in directory.parts:
        (directory / "checkpoints").mkdir(exist_ok=True)
        (directory / "checkpoints/latest.json").write_text("{}")
        sys.exit(130)

arguments = sys.argv[1:]
directory = Path(arguments[arguments.index("--run-dir") + 1] if "--run-dir" in arguments else arguments[-1])
signal.signal(signal.SIGINT, stop)
root = directory.parent.parent
busy = root / f"{directory.parent.name}-{directory.name}.busy"
busy.touch()
with (root / "calls").open("a") as calls:
    calls.write(json.dumps([arguments, len(list(root.glob("*.busy")))]) + "\\n")
if "--run-dir" in arguments:
    text = Path(arguments[1]).read_text().replace("\\nseed: 1\\n", "\\n" + arguments[3].replace("=", ": ") + "\\n")
    (directory / "config.yaml").write_text(text)
print("begun", flush=True)
while directory.parts[-2] in ("waiting", "stuck") and "--resume" not in arguments:
    time.sleep(0.01)
time.sleep(0.03)
busy.unlink()
if "killed" in directory.parts:
    os.kill(os.getpid(), signal.SIGKILL)
if "failing" in directory.parts:
    sys.exit("error: it was not to be")
(directory / "evaluation.json").write_text(json.dumps({"return_mean": 7.0, "return_std": 0.5}))
'''


@pytest.fixture(autouse=True)
def of_a_session():
    """Hanging up ends a process, also where these tests run below ``nohup``."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def sweep_of(write_config, tmp_path, monkeypatch):
    """Loads a sweep over variants that change nothing, whose runs are ``FAKE``."""
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(jobs, "COMMAND", (sys.executable, str(tmp_path / "fake.py")))
    monkeypatch.setattr(processes, "POLL", 0.01)
    write_config(algorithm="ppo")

    def load(*variants: str, seeds: tuple[int, ...] = (1, 2), **changes: object):
        data = {"config": "tiny.yaml", "seeds": list(seeds), "variants": {name: dict(changes) for name in variants}}
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
        return load_sweep(tmp_path / "s.yaml")

    return load


def calls(directory: Path) -> list[tuple[list[str], int]]:
    return [json.loads(line) for line in (directory / "calls").read_text().splitlines()]


def signal_when(paths: list[Path], *numbers: int) -> None:
    """Sends signals to this process once all logs are there and say something."""

    def send() -> None:
        deadline = time.monotonic() + 300  # of a machine that is busy
        while time.monotonic() < deadline and not all(path.exists() and path.stat().st_size for path in paths):
            time.sleep(0.01)
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(0.1)

    threading.Thread(target=send, daemon=True).start()


def test_every_run_has_its_directory_its_log_and_a_line(sweep_of, tmp_path, capfd):
    directory = run_sweep(sweep_of("a", "b"), tmp_path / "runs", num_parallel=2)
    assert directory == tmp_path / "runs" / "s"
    for name in ("a/seed-1", "a/seed-2", "b/seed-1", "b/seed-2"):
        assert (directory / name / "evaluation.json").is_file()
        assert (directory / name / "train.log").read_text() == "begun\n"
    asked = {tuple(arguments) for arguments, _ in calls(directory)}
    path = str(directory / "b" / "seed-2")
    assert ("train", str(directory / "configs/b.yml"), "--set", "seed=2", "--run-dir", path) in asked
    assert max(busy for _, busy in calls(directory)) <= 2
    assert "[4/4] " in (error := capfd.readouterr().err)
    assert "a/seed-2: return 7.0 ± 0.5, 0 s" in error
    assert json.loads((directory / "sweep.json").read_text()) == {
        "tasks": [],
        "variants": ["a", "b"],
        "runs": ["a/seed-1", "b/seed-1", "a/seed-2", "b/seed-2"],
    }


def test_the_sweep_lists_the_runs_that_it_and_its_parts_shall_have(sweep_of, tmp_path):
    sweep_of("a", "failing", "b")
    for variant in ("b", "a"):
        run_sweep(load_sweep(tmp_path / "s.yaml", variants=[variant]), tmp_path, num_parallel=2)
    order = json.loads((tmp_path / "s/sweep.json").read_text())
    assert order["runs"] == ["a/seed-1", "b/seed-1", "a/seed-2", "b/seed-2"]
    with pytest.raises(SweepError):
        run_sweep(load_sweep(tmp_path / "s.yaml", variants=["failing"]), tmp_path, num_parallel=2)
    assert "failing/seed-1" in json.loads((tmp_path / "s/sweep.json").read_text())["runs"]
    run_sweep(sweep_of("a", seeds=(2,)), tmp_path, num_parallel=1)  # what the file has no more is not waited for
    assert json.loads((tmp_path / "s/sweep.json").read_text())["runs"] == ["a/seed-2"]


def test_tasks_and_variants_with_dashes_are_trained_with_their_own_configurations(sweep_of, tmp_path):
    sweep_of("c")
    variants = "b-c: {ppo.discount: 0.5}, c: {ppo.discount: 0.25}"
    text = f"config: tiny.yaml\nseeds: [1]\ntasks: {{a: {{}}, a-b: {{}}}}\nvariants: {{{variants}}}\n"
    (tmp_path / "s.yaml").write_text(text)
    sweep = load_sweep(tmp_path / "s.yaml")
    directory = run_sweep(sweep, tmp_path, num_parallel=2)
    for run in sweep.runs:
        assert load_config(directory / run.path / "config.yaml") == run.config


@pytest.mark.parametrize("tasks", ["", "tasks: {config: {}}\n"])
def test_a_variant_named_config_makes_nothing_that_looks_like_a_run(sweep_of, tmp_path, tasks):
    sweep_of("config")
    (tmp_path / "s.yaml").write_text(f"config: tiny.yaml\nseeds: [1]\n{tasks}variants: {{config: {{}}}}\n")
    sweep = load_sweep(tmp_path / "s.yaml")
    directory = run_sweep(sweep, tmp_path, num_parallel=1)
    assert list(directory.rglob("config.yaml")) == [directory / sweep.runs[0].path / "config.yaml"]


def test_a_sweep_of_the_older_layout_goes_on(sweep_of, tmp_path):
    sweep = sweep_of("a")
    directory = run_sweep(sweep, tmp_path, num_parallel=1)
    (directory / "configs/a.yml").rename(directory / "configs/a.yaml")
    (directory / "sweep.json").write_text('{"tasks": [], "variants": ["a"]}\n')
    config = directory / "a/seed-1/config.yaml"
    config.write_text(config.read_text().replace("name: s-a", "name: other-a"))
    (directory / "a/seed-2/evaluation.json").unlink()
    run_sweep(sweep, tmp_path, num_parallel=1)
    assert [arguments[3] for arguments, _ in calls(directory)] == ["seed=1", "seed=2", "seed=2"]


def test_the_stored_configuration_is_the_runs(sweep_of, tmp_path):
    sweep = sweep_of("a", **{"ppo.discount": 0.5})
    directory = run_sweep(sweep, tmp_path, num_parallel=1)
    for run in sweep.runs:
        assert load_config(directory / "configs/a.yml", [f"seed={run.seed}"]) == run.config
    assert sweep.runs[0].config.ppo.discount == 0.5


def test_a_failure_loses_no_other_run_and_is_tried_again(sweep_of, tmp_path, capfd):
    sweep = sweep_of("failing", "a")
    with pytest.raises(SweepError) as caught:
        run_sweep(sweep, tmp_path, num_parallel=1)
    log = tmp_path / "s/failing/seed-1/train.log"
    assert "2 of 4 runs failed; the others are trained" in str(caught.value)
    assert f"failing/seed-1: exit code 1: error: it was not to be\n    log: {log}" in str(caught.value)
    assert "failing/seed-1: failed after 0 s" in capfd.readouterr().err
    assert (tmp_path / "s/a/seed-2/evaluation.json").is_file()
    assert len(calls(tmp_path / "s")) == 4
    with pytest.raises(SweepError):
        run_sweep(sweep, tmp_path, num_parallel=1)
    assert [arguments[3] for arguments, _ in calls(tmp_path / "s")[4:]] == ["seed=1", "seed=2"]
    assert "2 of 4 runs are finished already" in capfd.readouterr().err
    assert log.read_text().count("begun") == 2


def test_a_run_that_something_else_kills_has_failed(sweep_of, tmp_path):
    with pytest.raises(SweepError, match="killed/seed-1: killed by SIGKILL: begun"):
        run_sweep(sweep_of("killed", "a"), tmp_path, num_parallel=1)
    assert (tmp_path / "s/a/seed-2/evaluation.json").is_file()


def test_finished_runs_stay_and_started_ones_continue(sweep_of, tmp_path):
    sweep = sweep_of("a", seeds=(1, 2, 3))
    directory = run_sweep(sweep, tmp_path, num_parallel=1)
    finished, started, begun = (directory / run.path for run in sweep.runs)
    (started / "evaluation.json").unlink()
    (started / "checkpoints").mkdir()
    (started / "checkpoints/latest.json").write_text("{}")
    (begun / "evaluation.json").unlink()
    (begun / "checkpoints").mkdir()
    (begun / "metrics.csv").write_text("step,name,value,time\n")
    before = (finished / "evaluation.json").stat().st_mtime_ns
    run_sweep(sweep, tmp_path, num_parallel=1)
    assert [arguments[:2] for arguments, _ in calls(directory)[3:]] == [
        ["train", "--resume"],
        ["train", str(directory / "configs/a.yml")],
    ]
    assert (finished / "evaluation.json").stat().st_mtime_ns == before
    assert not (begun / "metrics.csv").exists()  # of a run that had no checkpoint to continue from
    assert (begun / "train.log").read_text() == "begun\nbegun\n"


def test_runs_of_another_configuration_are_refused(sweep_of, tmp_path):
    directory = run_sweep(sweep_of("a", "b"), tmp_path, num_parallel=1)
    with pytest.raises(ValueError, match="made with another configuration") as caught:
        run_sweep(sweep_of("a", **{"ppo.discount": 0.5}), tmp_path, num_parallel=1)
    assert f"{directory}/a/seed-1: made with another configuration: ppo.discount 0.99 there, 0.5 here" in str(
        caught.value
    )
    assert len(calls(directory)) == 4


def test_what_a_resumed_run_may_change_is_changed_and_the_rest_refused(sweep_of, tmp_path):
    directory = run_sweep(sweep_of("a"), tmp_path, num_parallel=1)
    run_sweep(sweep_of("a", **{"logging.interval": 7, "checkpoint.interval": 9}), tmp_path, num_parallel=1)
    assert len(calls(directory)) == 2  # both are finished still
    for key, value in {"evaluation.interval": 77, "total_steps": 300, "checkpoint.keep_best": False}.items():
        with pytest.raises(ValueError, match=f"another configuration: {key} "):
            run_sweep(sweep_of("a", **{key: value}), tmp_path, num_parallel=1)
    for seed in (1, 2):
        (directory / f"a/seed-{seed}/evaluation.json").unlink()
        (directory / f"a/seed-{seed}/checkpoints").mkdir()
        (directory / f"a/seed-{seed}/checkpoints/latest.json").write_text("{}")
    changed = {"evaluation.interval": 77, "total_steps": 300}
    with pytest.raises(ValueError, match=r"another configuration: ppo.discount 0.99 there, 0.5 here\n"):
        run_sweep(sweep_of("a", **changed, **{"ppo.discount": 0.5}), tmp_path, num_parallel=1)
    run_sweep(sweep_of("a", **changed), tmp_path, num_parallel=1)
    assert calls(directory)[-1][0] == [
        *("train", "--set", "total_steps=300", "--set", "evaluation.interval=77"),
        *("--resume", str(directory / "a/seed-2")),
    ]


@pytest.mark.parametrize("what", ["checkpoint", "file", "deep", "link"])
def test_nothing_that_is_worth_something_is_removed(sweep_of, tmp_path, what):
    sweep, run = sweep_of("a", "b"), tmp_path / "s/b/seed-2"
    (run / "checkpoints").mkdir(parents=True)
    (tmp_path / "else").mkdir()
    (tmp_path / "else/kept").touch()
    message = "which training does not write; move it away, or remove it"
    if what == "checkpoint":
        (run / "checkpoints/step_000000040").mkdir()
        message = f"continue the run with `tesserl train --resume {run}/checkpoints/step_000000040`, or move it away"
    elif what == "link":
        (run / "tensorboard").symlink_to(tmp_path / "else")
    else:
        (run / ("notes.txt" if what == "file" else "checkpoints/notes.txt")).touch()
    before = sorted(run.rglob("*"))
    with pytest.raises(ValueError, match=f"^{run}: ") as caught:
        run_sweep(sweep, tmp_path, num_parallel=1)
    assert message in str(caught.value)
    assert sorted(run.rglob("*")) == before
    assert not (tmp_path / "s/calls").exists()
    assert main(["sweep", str(tmp_path / "s.yaml"), "--runs", str(tmp_path), "--dry-run"]) == 2


def test_what_a_run_left_that_had_no_checkpoint_yet_is_removed(sweep_of, tmp_path):
    sweep, run = sweep_of("a", seeds=(1,)), tmp_path / "s/a/seed-1"
    for name in (
        *("config.yaml", "metrics.csv", "buffer/done.memmap", "checkpoints/.step_000000040.partial/state.json"),
        *("replay/000-004.safetensors", "tensorboard/events.out.tfevents.1", "wandb/run-1/files/x", "train.log"),
    ):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("old\n")
    (run / "wandb/latest-run").symlink_to("run-1")
    run_sweep(sweep, tmp_path, num_parallel=1)
    assert sorted(path.name for path in run.iterdir()) == ["config.yaml", "evaluation.json", "train.log"]
    assert (run / "train.log").read_text() == "old\nbegun\n"


@pytest.mark.parametrize("name", ["runs", "runs/s", "runs/s/a", "runs/s/a/seed-2", "runs/s/configs"])
def test_a_file_in_the_place_of_a_directory_is_found_at_once(sweep_of, tmp_path, capfd, name):
    sweep_of("a")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    for more in ((), ("--dry-run",)):
        assert main(["sweep", str(tmp_path / "s.yaml"), "--runs", str(tmp_path / "runs"), *more]) == 2
        assert f"error: {tmp_path / name}: expected a directory, or nothing yet, got" in capfd.readouterr().err
    assert not list((tmp_path / "runs").rglob("train.log"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_every_run_and_the_same_command_continues(sweep_of, tmp_path, capfd, number):
    sweep = sweep_of("waiting", seeds=(1, 2, 3))  # they wait until they are stopped, unless they are resumed
    logs = [tmp_path / f"s/waiting/seed-{seed}/train.log" for seed in (1, 2, 3)]
    signal_when(logs[:2], number)
    with pytest.raises(SweepStopped, match=r"0 of 3 runs in .* finished; the same command continues them") as caught:
        run_sweep(sweep, tmp_path, num_parallel=2)
    assert caught.value.exit_code == 128 + number
    assert (logs[0].with_name("checkpoints") / "latest.json").is_file()
    assert not logs[2].exists()
    assert "waiting/seed-1: stopped after" in capfd.readouterr().err


def test_what_failed_before_a_signal_is_said(sweep_of, tmp_path):
    signal_when([tmp_path / "s/waiting/seed-1/train.log"], signal.SIGINT)
    with pytest.raises(SweepStopped, match="0 of 2 runs") as caught:
        run_sweep(sweep_of("failing", "waiting", seeds=(1,)), tmp_path, num_parallel=1)
    log = tmp_path / "s/failing/seed-1/train.log"
    assert str(caught.value).endswith(
        f"\n1 of them failed:\n  failing/seed-1: exit code 1: error: it was not to be\n    log: {log}"
    )


def test_a_session_that_ends_hangs_up_twice_and_hurries_nobody(sweep_of, tmp_path, capfd):
    signal_when([tmp_path / "s/stuck/seed-1/train.log"], signal.SIGHUP, signal.SIGHUP)
    began = time.monotonic()
    with pytest.raises(SweepStopped, match="stopped by SIGHUP"):
        run_sweep(sweep_of("stuck", seeds=(1,)), tmp_path, num_parallel=1, stop_timeout=1.0)
    assert time.monotonic() - began > 1.0
    assert "and is killed" in capfd.readouterr().err


def test_what_ignores_hanging_up_goes_on_doing_so(sweep_of, tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as below nohup
    try:
        signal_when([tmp_path / "s/a/seed-1/train.log"], signal.SIGHUP)
        run_sweep(sweep_of("a"), tmp_path, num_parallel=1)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_is_gone_does_not_keep_runs_from_stopping(sweep_of, tmp_path, monkeypatch):
    class Gone:
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

        def flush(self) -> None:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Gone())
    signal_when([tmp_path / "s/stuck/seed-1/train.log"], signal.SIGHUP)
    with pytest.raises(SweepStopped):
        run_sweep(sweep_of("stuck", seeds=(1,)), tmp_path, num_parallel=1, stop_timeout=0.1)


def test_a_run_that_does_not_stop_is_named_and_killed(sweep_of, tmp_path, capfd):
    signal_when([tmp_path / "s/stuck/seed-1/train.log"], signal.SIGINT)
    with pytest.raises(SweepStopped):
        run_sweep(sweep_of("stuck"), tmp_path, num_parallel=1, stop_timeout=0.1)
    assert "stuck/seed-1 (process " in (error := capfd.readouterr().err)
    assert f"has not stopped and is killed; log: {tmp_path}/s/stuck/seed-1/train.log" in error


def test_a_second_signal_does_not_wait(sweep_of, tmp_path, capfd):
    signal_when([tmp_path / "s/stuck/seed-1/train.log"], signal.SIGINT, signal.SIGINT)
    with pytest.raises(SweepStopped):
        run_sweep(sweep_of("stuck"), tmp_path, num_parallel=1, stop_timeout=1e6)
    assert "has not stopped and is killed" in capfd.readouterr().err


def test_two_sweeps_do_not_share_a_directory(sweep_of, tmp_path):
    sweep, options = sweep_of("a"), {"doing": "runs a sweep here", "remedy": ""}
    (tmp_path / "s").mkdir()
    refused = pytest.raises(
        InUseError, match=f"s: another process \\({os.getpid()} on .* runs a sweep here; wait for it"
    )
    with locked(tmp_path / "s", **options), refused:
        run_sweep(sweep, tmp_path, num_parallel=1)
    run_sweep(sweep, tmp_path, num_parallel=1)


def test_a_run_that_a_killed_sweep_left_is_neither_touched_nor_started_again(sweep_of, tmp_path):
    sweep, run = sweep_of("a"), tmp_path / "s/a/seed-1"
    run.mkdir(parents=True)
    (run / "metrics.csv").touch()
    refused = pytest.raises(
        InUseError, match=r"seed-1: another process .* trains here; a sweep or search that was killed may have"
    )
    with locked(run, doing="trains here", remedy=""), refused:
        run_sweep(sweep, tmp_path, num_parallel=1)
    assert (run / "metrics.csv").exists()
    assert not (run / "train.log").exists()
    run_sweep(sweep, tmp_path, num_parallel=1)


def test_a_mistake_in_the_last_variant_starts_nothing(sweep_of, tmp_path, capfd):
    sweep_of("a")
    file = tmp_path / "s.yaml"
    for mistake in (
        "{ppo.discoun: 0.5}",
        "{environment.id: Nowhere-v0}",
        "{environment.id: Pendulum-v1, algorithm: iqn}",
    ):
        text = f"config: tiny.yaml\nseeds: [1]\nvariants: {{a: {{}}, last: {mistake}}}\n"
        file.write_text(text)
        assert main(["sweep", str(file), "--runs", str(tmp_path / "runs")]) == 2
        assert "last" in capfd.readouterr().err
        assert not list((tmp_path / "runs").rglob("train.log"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "cuda:99"}, "a: device: cuda:99 is not there"),
        (
            {"initial_weights": "no/run"},
            "a: initial_weights: expected a run or a checkpoint of one, there is none at {here}/no/run",
        ),
        (
            {"algorithm": "cpl", "pairs.source": {"kind": "offline", "path": "no/pairs"}},
            "a: pairs.source.path: expected a directory of stored pairs, there is none at {here}/no/pairs",
        ),
    ],
)
def test_what_a_run_needs_and_is_not_here_is_found_before_any_starts(
    sweep_of, write_config, tmp_path, capfd, changes, message
):
    if changes.get("algorithm") == "cpl":
        write_config(algorithm="cpl")
    sweep_of("a", **changes)
    for more in ((), ("--dry-run",)):
        assert main(["sweep", str(tmp_path / "s.yaml"), "--runs", str(tmp_path / "runs"), *more]) == 2
        assert f"error: {message.format(here=Path.cwd())}" in capfd.readouterr().err
    assert not list((tmp_path / "runs").rglob("train.log"))


def test_a_dry_run_prints_what_there_is_and_what_would_be(sweep_of, tmp_path, capfd):
    sweep = sweep_of("a", "b")
    (run_sweep(sweep, tmp_path, num_parallel=1) / "b/seed-2/evaluation.json").unlink()
    capfd.readouterr()
    arguments = ["sweep", str(tmp_path / "s.yaml"), "--runs", str(tmp_path), "--dry-run", "--jobs", "3"]
    assert main(arguments) == 0
    output = capfd.readouterr()
    assert output.out.splitlines()[-2:] == ["a/seed-2: finished, 240 steps", "b/seed-2: new, 240 steps"]
    assert output.err == f"4 runs in {tmp_path}/s, 3 at a time: 3 finished, 0 started, 1 new\n"
    assert len(calls(tmp_path / "s")) == 4
    assert main([*arguments, "--name", "t", "--variant", "a", "--set", "total_steps=120"]) == 0
    assert capfd.readouterr().out == "a/seed-1: new, 120 steps\na/seed-2: new, 120 steps\n"


def test_as_many_runs_as_cores_have_threads_for(sweep_of, monkeypatch):
    config = sweep_of("a").runs[0].config
    monkeypatch.setattr(launchers.os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    for threads, expected in ((1, 8), (3, 2), (16, 1)):
        assert default_parallel([config, config.model_copy(update={"num_threads": threads})]) == expected


def test_a_real_run_is_trained_and_compared(write_config, tmp_path, capfd):
    write_config(algorithm="ppo")
    (tmp_path / "s.yaml").write_text("config: tiny.yaml\nseeds: [5]\nvariants: {a: {ppo.discount: 0.5}}\n")
    arguments = ["sweep", str(tmp_path / "s.yaml"), "--runs", str(tmp_path / "runs"), "--set", "total_steps=60"]
    assert main(arguments) == 0
    assert capfd.readouterr().out == f"{tmp_path}/runs/s\n"
    run = tmp_path / "runs/s/a/seed-5"
    assert load_config(run / "config.yaml") == load_sweep(tmp_path / "s.yaml", ["total_steps=60"]).runs[0].config
    assert (run / "train.log").read_text().endswith(f"{run}\n")
    assert main(["compare", str(tmp_path / "runs/s")]) == 0
    assert "CartPole-v1, by seed" in capfd.readouterr().out


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("sweeps/*.yaml")), ids=lambda file: file.stem)
def test_every_run_of_every_sweep_loads(file):
    sweep = load_sweep(file)
    assert {run.variant for run in sweep.runs} == set(sweep.variants)
    assert {run.task for run in sweep.runs} == set(sweep.tasks or [None])
    configs = [run.config.model_copy(update={"name": None}) for run in sweep.runs if run.seed == sweep.runs[0].seed]
    assert len({config.model_dump_json() for config in configs}) == len(configs)  # no two variants are the same
