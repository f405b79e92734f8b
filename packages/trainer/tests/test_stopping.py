"""Signals to the whole process group, parents that die, tasks that never return: a run ends, and leaves nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tesserl_configs import load_config
from tesserl_configs.environment import EnvironmentConfig
from tesserl_environments import TaskError, WorkerError, closed_afterwards
from tesserl_trainer.algorithms.environments import make_environments, task_spaces
from tesserl_trainer.running.train import train
from tesserl_training.checkpoints.run_checkpoints import Checkpoints

from . import misbehaving as tasks

pytestmark = pytest.mark.kernel_free

PATIENCE = 300.0
"""Seconds, on a machine that is busy."""

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "RL_WARNINGS": "False", "PYTHONWARNINGS": "ignore"}

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]

SCRIPT = """
import sys
import misbehaving
if __name__ == "__main__":
    from tesserl_trainer.cli import main
    sys.exit(main())
"""

UNGUARDED = """
import misbehaving
from tesserl_configs import load_config
from tesserl_trainer.running.train import train
train(load_config("tiny.yaml"), run_dir="run")
"""


@pytest.fixture
def place(tmp_path):
    """A directory with a script that knows the misbehaving task."""
    shutil.copy(tasks.__file__, tmp_path)
    (tmp_path / "tesserl.py").write_text(SCRIPT)
    (tmp_path / "unguarded.py").write_text(UNGUARDED)
    return tmp_path


def start(place, *arguments, script="tesserl.py"):
    """A process that leads a group, as those do that a terminal or a scheduler starts."""
    return subprocess.Popen(
        [sys.executable, script, *map(str, arguments)],
        cwd=place,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def until(holds, process):
    """Wait until something holds, unless the process ends before."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(process.communicate()[1])
        time.sleep(0.05)


def ended(process):
    try:
        _, stderr = process.communicate(timeout=PATIENCE)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert "Traceback" not in stderr, stderr
    return stderr


def processes_of(log):
    """Numbers of the processes that have made environments."""
    return {int(line.split()[0]) for line in log.read_text().splitlines()} if log.exists() else set()


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z" if Path("/proc").exists() else True


def misbehaving(write_config, log, wrong="null", algorithm="ppo", at=7, **changes):
    task = "{id: Misbehaving-v0, num_envs: 3, vectorization: async, worker_timeout: 300, start_timeout: 300, "
    task += f"kwargs: {{wrong: {wrong}, at: {at}, log: {log}}}}}"
    return write_config(algorithm=algorithm, **{"{id: CartPole-v1, num_envs: 3}": task} | changes)


# --- signals to the group -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_to_the_group_leaves_a_checkpoint_its_exit_code_and_no_worker(write_config, place, number, code):
    log = place / "log"
    config = misbehaving(write_config, log, **{"total_steps: 240": "total_steps: 1000000"})
    process = start(place, "train", config, "--run-dir", "a run")
    until((place / "a run/checkpoints/latest.json").exists, process)
    os.killpg(process.pid, number)
    told = ended(process)
    assert process.returncode == code
    assert told.endswith(f"stopped by {number.name}; continue with: tesserl train --resume 'a run'\n")
    assert (place / "a run/metrics.csv").exists()
    step = json.loads((Checkpoints(place / "a run").latest() / "manifest.json").read_text())["step"]
    assert step % 30 == 0  # whole rounds
    assert not any(map(is_alive, processes_of(log)))


COMMANDS = {
    "collect": ("collect", "tiny.yaml", "--random", "--episodes", "9", "--out", "store"),
    "observe": ("observe", "tiny.yaml", "--out", "picture.png"),
    "train before its first step": ("train", "tiny.yaml", "--run-dir", "run"),
}


@pytest.mark.parametrize(
    ("command", "signals", "wrong"),
    [
        ("collect", SIGNALS[1], "sleep in step"),
        ("observe", SIGNALS[2], "sleep in reset"),
        ("train before its first step", SIGNALS[1], "sleep in make"),
    ],
)
def test_any_command_stops_while_it_waits_for_a_worker(write_config, place, command, signals, wrong):
    log, (number, code) = place / "log", signals
    misbehaving(write_config, log, wrong)
    process = start(place, *COMMANDS[command])
    until(Path(f"{log}.sleeps").exists, process)
    os.killpg(process.pid, number)
    assert ended(process) == f"stopped by {number.name}\n"
    assert process.returncode == code
    assert not any(map(is_alive, processes_of(log)))


def test_a_signal_during_the_final_evaluation_says_how_to_continue(write_config, place):
    """The task sleeps at a step that training does not reach: the evaluation's episodes are longer."""
    log = place / "log"
    changes = {"total_steps: 240": "total_steps: 30", "interval: 60, episodes: 2": "interval: 1000000, episodes: 2"}
    changes |= {"final_episodes: 3": "final_episodes: 9"}
    misbehaving(write_config, log, "sleep in step", at=18, **changes)
    process = start(place, "train", "tiny.yaml", "--run-dir", "run")
    until(Path(f"{log}.sleeps").exists, process)
    os.killpg(process.pid, signal.SIGTERM)
    assert "stopped by SIGTERM; continue with: tesserl train --resume run\n" in ended(process)
    assert process.returncode == 143


# --- workers and their parent -------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["null", "sleep in step"])
def test_workers_end_when_their_parent_is_killed(write_config, place, wrong):
    log = place / "log"
    config = misbehaving(write_config, log, wrong, **{"total_steps: 240": "total_steps: 1000000"})
    process = start(place, "train", config, "--run-dir", "run")
    marker = Path(f"{log}.sleeps") if wrong != "null" else place / "run/checkpoints/latest.json"
    until(marker.exists, process)
    assert any(map(is_alive, processes_of(log)))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + PATIENCE
    while any(map(is_alive, processes_of(log))):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "Traceback" not in process.communicate(timeout=PATIENCE)[1]


def test_no_environment_is_made_in_the_parents_process(tmp_path):
    log = tmp_path / "log"
    config = EnvironmentConfig(id="Misbehaving-v0", vectorization="async", kwargs={"log": str(log)}, worker_timeout=300)
    task_spaces(config)
    for evaluation in (False, True):
        with closed_afterwards(make_environments(config, 2, evaluation=evaluation)) as environments:
            environments.reset(seed=[1, 2])
    assert log.read_text().count("make") == 1 + 3 + 3
    assert log.read_text().count("close") == 1 + 3 + 3
    assert os.getpid() not in processes_of(log)


def test_a_script_that_starts_training_when_it_is_imported_is_told_the_remedy(write_config, place):
    misbehaving(write_config, place / "log")
    process = start(place, script="unguarded.py")
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "bootstrapping" not in stderr  # as multiprocessing has it
    assert stderr.strip().endswith(
        "WorkerError: environment worker 0 began to run the script that started it: a worker imports that script; "
        'put what the script does below: if __name__ == "__main__":'
    )


# --- tasks that never return --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [task_spaces, lambda config: make_environments(config, 2)])
def test_a_constructor_that_never_returns_is_an_error_that_names_the_key(make):
    config = EnvironmentConfig(
        id="Misbehaving-v0", vectorization="async", start_timeout=10.0, kwargs={"wrong": "sleep in make"}
    )
    message = r"environment worker 0 did not make its environment within 10 s; raise start_timeout"
    with pytest.raises(WorkerError, match=message):
        make(config)


@pytest.mark.parametrize("wrong", ["sleep in close", "raise in close"])
def test_a_close_that_fails_costs_no_run(write_config, tmp_path, caplog, wrong):
    changes = {"worker_timeout: 300": "worker_timeout: 5"} if wrong == "sleep in close" else {}
    path = misbehaving(write_config, tmp_path / "log", f"{wrong}")
    path.write_text(path.read_text().replace(*next(iter(changes.items()), ("", ""))))
    run_dir = train(load_config(path), run_dir=tmp_path / "run")
    assert (run_dir / "evaluation.json").exists()
    assert caplog.messages
    assert all(
        "close" in message and message.startswith("warning: environment worker 0") for message in caplog.messages
    )


def test_an_evaluation_in_workers_plays_the_same_episodes(write_config, tmp_path):
    results = []
    for number, vectorization in enumerate(("sync", "async")):
        path = write_config(**{"num_envs: 3}": f"num_envs: 3, vectorization: {vectorization}, worker_timeout: 300}}"})
        run_dir = train(load_config(path), run_dir=tmp_path / str(number))
        result = json.loads((run_dir / "evaluation.json").read_text())
        results.append((result["returns"], result["lengths"], result["last_return_mean"]))
    assert results[0] == results[1]


def test_a_task_that_cannot_be_closed_in_this_process_is_named(caplog):
    config = EnvironmentConfig(id="Misbehaving-v0", kwargs={"wrong": "raise in close"})
    with closed_afterwards(make_environments(config, 2)):
        pass
    [warning] = caplog.messages
    assert warning.startswith("warning: environment 0 of Misbehaving-v0 raised an error in close():\n")
    with pytest.raises(TaskError), closed_afterwards(make_environments(config, 2)):
        raise TaskError
