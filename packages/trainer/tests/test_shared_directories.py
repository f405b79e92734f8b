"""Several processes that want one directory: one gets it, the others are told who has it."""

import os
import socket
from contextlib import contextmanager
from pathlib import Path

import pytest

from tesserl_analysis.record import read_metrics
from tesserl_configs import ConfigError, load_config
from tesserl_storage.locks import InUseError, locked
from tesserl_trainer import train
from tesserl_trainer.algorithms import builder_of
from tesserl_trainer.running import directories
from tesserl_trainer.running import train as training

pytestmark = pytest.mark.kernel_free

OWNER = rf"another process \({os.getpid()} on {socket.gethostname()}, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\)"


@pytest.fixture
def config(write_config):
    return load_config(write_config())


@pytest.fixture
def build_loop(config):
    return builder_of(config.algorithm).build_loop


@pytest.fixture
def before_the_lock(monkeypatch):
    """Does what another process did while this one waited for the lock."""

    def install(act):
        @contextmanager
        def late(directory: Path, **options):
            monkeypatch.setattr(directories, "locked", locked)
            act()
            with locked(directory, **options):
                yield

        monkeypatch.setattr(directories, "locked", late)

    return install


def test_a_second_training_in_a_new_directory_is_refused_and_names_the_first(config, build_loop, tmp_path, monkeypatch):
    monkeypatch.setattr(directories, "LOCK_TIMEOUT", 0.0)
    refusals = []

    def build(*arguments):  # the first training is about to build its network: it has written nothing yet
        with pytest.raises(InUseError, match=f"run: {OWNER} trains here; wait for it, stop it, or name another") as it:
            train(config, run_dir=tmp_path / "run")
        refusals.append(it.value)
        return build_loop(*arguments)

    training.run_loop(config, tmp_path / "run", build)
    assert len(refusals) == 1
    assert refusals[0].exit_code == 1
    assert not (tmp_path / "run" / ".lock.owner.json").exists()


def test_two_trainings_without_a_directory_get_one_each(config, build_loop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def build(*arguments):
        assert train(config) == Path("runs/tiny-2")
        return build_loop(*arguments)

    assert training.run_loop(config, None, build) == Path("runs/tiny")
    first, second = (read_metrics(Path("runs") / name / "metrics.csv") for name in ("tiny", "tiny-2"))
    assert [row[:2] for row in first] == [row[:2] for row in second]


def test_a_new_training_does_not_begin_where_another_one_ended_while_it_waited(config, tmp_path, before_the_lock):
    before_the_lock(lambda: train(config, run_dir=tmp_path / "run"))
    with pytest.raises(ConfigError, match="run is not empty; continue the run there with --resume"):
        train(config, run_dir=tmp_path / "run")


@pytest.mark.parametrize("by_directory", [True, False])
def test_a_resume_reads_its_files_after_it_has_waited(config, tmp_path, before_the_lock, by_directory):
    run = train(config, run_dir=tmp_path / "run")
    longer = config.model_copy(update={"total_steps": 360})
    before_the_lock(lambda: train(longer, run_dir=run, resume=True))
    if by_directory:  # with the configuration that the other one has written
        training.resume_run(run)
        assert load_config(run / "config.yaml").total_steps == 360
    else:
        train(longer, run_dir=run, resume=True)
    assert (run / "checkpoints" / "step_000000360").is_dir()
    assert read_metrics(run / "metrics.csv")[-1][0] == 360


def test_a_directory_with_nothing_but_locks_logs_and_unfinished_files_can_become_a_run(config, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in (".lock", ".lock.owner.json", "train.log", ".config.yaml.12ab34cd.partial"):
        (run / name).touch()
    train(config, run_dir=run)
    assert not list(run.glob("*.partial"))


def test_resuming_what_is_no_run_leaves_nothing_there(config, tmp_path):
    with pytest.raises(Exception, match="expected a run, got no such directory"):
        training.resume_run(tmp_path / "empty")
    assert not (tmp_path / "empty").exists()
