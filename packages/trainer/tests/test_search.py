"""``tesserl search``: every trial is one run, a killed search continues, and the best configuration comes out."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tesserl_configs import ConfigError, load_config
from tesserl_configs.search import load_search
from tesserl_storage.locks import InUseError
from tesserl_trainer.cli import main
from tesserl_trainer.search import search as command
from tesserl_trainer.search.search import SearchStopped, run_search
from tesserl_trainer.search.trials import JOURNAL, Trials
from tesserl_trainer.sweep import jobs, processes
from tesserl_trainer.sweep.jobs import SweepError

from .test_sweep import signal_when

pytestmark = pytest.mark.kernel_free

FAKE = '''
"""Stands for ``tesserl``: a run whose returns are 1000 times its learning rate, asked for by what its file says."""
import json, signal, sys, time
from pathlib import Path
import yaml

arguments = sys.argv[1:]
directory = Path(arguments[arguments.index("--run-dir") + 1] if "--run-dir" in arguments else arguments[-1])
root = directory.parent.parent
with (root / "calls").open("a") as calls:
    calls.write(json.dumps([directory.parent.name, "--resume" in arguments]) + "\\n")

def stop(signum, frame):
    if (root / "early").exists():  # as of a Python that has not begun to run the program
        sys.exit("KeyboardInterrupt")
    (directory / "checkpoints").mkdir(exist_ok=True)
    (directory / "checkpoints/latest.json").write_text("{}")
    sys.exit(130)

signal.signal(signal.SIGINT, stop)
if "--run-dir" in arguments:
    (directory / "config.yaml").write_text(Path(arguments[1]).read_text())
rate = yaml.safe_load((directory / "config.yaml").read_text())["optimizer"]["learning_rate"]
rows = "".join(f"{step},evaluation/return,{1000 * rate},0.0\\n" for step in (10, 20))
(directory / "metrics.csv").write_text("step,name,value,time\\n" + rows)
print("begun", flush=True)
if (root / "fail").exists():
    sys.exit("error: it was not to be")
while (root / "wait").exists() or (rate < 0.001 and (root / "slow").exists()):
    time.sleep(0.01)
(directory / "partial").write_text(json.dumps({"return_mean": 1000 * rate, "return_std": 0.5}))
(directory / "partial").rename(directory / "evaluation.json")
'''


@pytest.fixture
def search_of(write_config, tmp_path, monkeypatch):
    """Loads a search over the learning rate, whose runs are ``FAKE``."""
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(jobs, "COMMAND", (sys.executable, str(tmp_path / "fake.py")))
    monkeypatch.setattr(processes, "POLL", 0.01)
    monkeypatch.setattr(command, "LOOK", 0.01)
    monkeypatch.setattr(command, "check_networks", lambda runs, directory: None)
    write_config(algorithm="ppo")

    def load(**changes: object):
        space = {
            "optimizer.learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
            "nn.vector.hidden_sizes": [[8], [16, 16]],
        }
        data = {"config": "tiny.yaml", "space": space, "trials": 6, "pruning": {"kind": "none"}} | changes
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
        return load_search(tmp_path / "s.yaml")

    return load


def calls(directory: Path) -> list[tuple[str, bool]]:
    return [tuple(json.loads(line)) for line in (directory / "calls").read_text().splitlines()]


def unfinished(directory: Path) -> set[str]:
    return {name for name, _ in calls(directory) if not (directory / name / "seed-1/evaluation.json").exists()}


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def rates(directory: Path) -> dict[str, float]:
    return {
        path.parts[-3]: load_config(path).optimizer.learning_rate
        for path in directory.glob("trial-*/seed-1/config.yaml")
    }


def test_every_trial_is_a_run_and_the_best_is_a_configuration(search_of, tmp_path, capfd):
    best = run_search(search_of(), tmp_path / "runs", num_parallel=2)
    assert best == tmp_path / "runs/s/best.yaml"
    assert sorted(calls(best.parent)) == [(f"trial-{number:04d}", False) for number in range(6)]
    found = rates(best.parent)
    assert len(set(found.values())) == 6
    config = load_config(best)
    assert (config.name, config.seed, config.optimizer.learning_rate) == ("s-best", 1, max(found.values()))
    for name in ("history.png", "importance.png"):
        assert (best.parent / name).read_bytes().startswith(b"\x89PNG")
    err = capfd.readouterr().err
    assert "[6/6] trial-000" in err
    assert "s: 6 trials finished, 0 stopped early, 0 failed; the best" in err
    again = run_search(search_of(trials=7), tmp_path / "runs", num_parallel=1)
    assert calls(again.parent)[6:] == [("trial-0006", False)]


def test_the_value_of_a_trial_is_the_mean_over_its_seeds_which_train_in_turn(search_of, tmp_path, capfd):
    search = search_of(trials=1, seeds=[3, 4], set={"optimizer.learning_rate": 0.02, "nn.vector.hidden_sizes": [8]})
    best = run_search(search, tmp_path / "runs", num_parallel=2)
    first, second = (best.parent / f"trial-0000/seed-{seed}" for seed in (3, 4))
    assert load_config(second / "config.yaml").optimizer.learning_rate == 0.02
    assert (first / "evaluation.json").stat().st_mtime_ns <= (second / "train.log").stat().st_mtime_ns
    assert "[1/1] trial-0000: 20.0; optimizer.learning_rate 0.02" in capfd.readouterr().err
    assert load_config(best).seed == 3


def test_the_file_decides_the_values(search_of, tmp_path):
    for name in ("one", "two"):
        run_search(search_of(name=name, trials=3), tmp_path / "runs", num_parallel=1)
    run_search(search_of(name="three", trials=3, sampler_seed=2), tmp_path / "runs", num_parallel=1)
    one, two, three = (rates(tmp_path / "runs" / name) for name in ("one", "two", "three"))
    assert one == two
    assert not set(one.values()) & set(three.values())


def test_the_first_trial_is_the_base_if_the_space_holds_it(search_of, tmp_path):
    base = {"optimizer.learning_rate": 0.02, "nn.vector.hidden_sizes": [8]}
    best = run_search(search_of(set=base, trials=1), tmp_path / "runs", num_parallel=1)
    assert rates(best.parent) == {"trial-0000": 0.02}


KILLED = """
import sys
from pathlib import Path
from tesserl_configs.search import load_search
from tesserl_trainer.search import search as command
from tesserl_trainer.sweep import jobs, processes
jobs.COMMAND, processes.POLL = (sys.executable, sys.argv[1]), 0.01
command.check_networks = lambda runs, directory: None
command.run_search(load_search(sys.argv[2]), Path(sys.argv[3]), num_parallel=2)
"""


def test_a_killed_search_continues_and_no_finished_trial_runs_again(search_of, tmp_path):
    search, runs = search_of(), tmp_path / "runs"
    directory = runs / "s"
    script = [sys.executable, "-c", KILLED, tmp_path / "fake.py", tmp_path / "s.yaml", runs]
    process = subprocess.Popen(script, stderr=subprocess.DEVNULL)
    wait_until(lambda: (directory / "trial-0002/seed-1/evaluation.json").exists())
    (directory / "wait").touch()
    wait_until(lambda: len(unfinished(directory)) == 2)
    process.kill()
    process.wait()
    before = calls(directory)
    (directory / "wait").unlink()  # the runs that it has left end now
    with (directory / JOURNAL).open("a") as journal:
        journal.write('{"op_code": 4, "half a li')  # it was writing when it was killed
    (directory / f"{JOURNAL}.lock").symlink_to(JOURNAL)
    while True:
        try:
            run_search(search, runs, num_parallel=2)
            break
        except InUseError:  # until they have ended
            time.sleep(0.05)
    assert sorted({name for name, _ in calls(directory)}) == [f"trial-{number:04d}" for number in range(6)]
    assert len(calls(directory)) == 6
    assert calls(directory)[: len(before)] == before
    assert [path.name for path in directory.glob("best.yaml")] == ["best.yaml"]


@pytest.mark.parametrize("resumed", [True, False])
def test_a_search_that_is_stopped_continues_its_runs(search_of, tmp_path, resumed):
    runs = tmp_path / "runs"
    (runs / "s").mkdir(parents=True)
    (runs / "s/wait").touch()
    if not resumed:
        (runs / "s/early").touch()
    signal_when([runs / f"s/trial-000{number}/seed-1/train.log" for number in range(2)], signal.SIGINT)
    with pytest.raises(SearchStopped, match=r"stopped by SIGINT with 0 of 6 trials in .* finished; the same command"):
        run_search(search_of(), runs, num_parallel=2)
    (runs / "s/wait").unlink()
    values = rates(runs / "s")
    run_search(search_of(), runs, num_parallel=2)
    assert sorted(calls(runs / "s"))[:4] == [
        *(("trial-0000", False), ("trial-0000", resumed), ("trial-0001", False), ("trial-0001", resumed))
    ]
    assert len(calls(runs / "s")) == 8
    assert {it.state.name for it in Trials(search_of(), runs / "s").finished()} == {"COMPLETE"}
    assert values.items() <= rates(runs / "s").items()


PRUNED = {
    "sampler_seed": 3,
    "pruning": {"kind": "median", "startup_trials": 1},
    "set": {"optimizer.learning_rate": 0.01, "nn.vector.hidden_sizes": [8]},
}


def test_a_search_that_was_killed_while_it_stopped_a_trial_does_not_start_it_again(search_of, tmp_path, monkeypatch):
    def killed(self, number):
        raise ConnectionError("killed")

    runs = tmp_path / "runs"
    (runs / "s").mkdir(parents=True)
    (runs / "s/slow").touch()
    with monkeypatch.context() as patched:
        patched.setattr(Trials, "stop", killed)
        with pytest.raises(ConnectionError, match="killed"):
            run_search(search_of(**PRUNED), runs, num_parallel=1)
    before = calls(runs / "s")
    run_search(search_of(**PRUNED, trials=len(before)), runs, num_parallel=1)
    assert calls(runs / "s") == before
    assert Trials(search_of(**PRUNED), runs / "s").finished()[-1].state.name == "PRUNED"


def test_a_trial_below_the_median_is_stopped_in_order_and_recorded(search_of, tmp_path, capfd):
    runs = tmp_path / "runs"
    (runs / "s").mkdir(parents=True)
    (runs / "s/slow").touch()
    search = search_of(**PRUNED)
    run_search(search, runs, num_parallel=1)
    hopeless = unfinished(runs / "s")
    assert hopeless
    err = capfd.readouterr().err
    for name in hopeless:
        assert f"{name}: below the median, stopped; optimizer.learning_rate" in err
        assert (runs / "s" / name / "seed-1/checkpoints/latest.json").exists()
    assert len(calls(runs / "s")) == 6
    states = {f"trial-{it.number:04d}": it.state.name for it in Trials(search, runs / "s").finished()}
    assert {name for name, state in states.items() if state == "PRUNED"} == hopeless


def test_a_search_whose_trials_all_fail_ends(search_of, tmp_path):
    runs = tmp_path / "runs"
    (runs / "s").mkdir(parents=True)
    (runs / "s/fail").touch()
    with pytest.raises(SweepError, match=r"5 trials and none has a value; .*\n.*exit code 1: error: it was not to be"):
        run_search(search_of(trials=9), runs, num_parallel=1)
    assert len(calls(runs / "s")) == 5


def test_another_search_and_unknown_trials_are_refused(search_of, tmp_path):
    runs = tmp_path / "runs"
    run_search(search_of(trials=1), runs, num_parallel=1)
    with pytest.raises(ConfigError, match=r"runs/s: holds a search with another seeds, base.total_steps; go"):
        run_search(search_of(trials=2, seeds=[2], set={"total_steps": 500}), runs, num_parallel=1)
    (runs / "s" / JOURNAL).unlink()
    with pytest.raises(ConfigError, match=r"trial-0000: is a trial that the journal of this search does not know"):
        run_search(search_of(trials=2), runs, num_parallel=1)


def test_without_optuna_one_sentence_names_the_extra(search_of, tmp_path, monkeypatch, capfd):
    search_of()
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["search", str(tmp_path / "s.yaml"), "--runs", str(tmp_path / "runs")]) == 2
    assert 'tesserl search needs Optuna; install "tesserl-trainer[search]"' in capfd.readouterr().err


def test_the_objective_is_the_final_return_or_the_mean_of_evaluations(tmp_path):
    (tmp_path / "evaluation.json").write_text('{"return_mean": 7.0}')
    (tmp_path / "metrics.csv").write_text("step,name,value,time\n1,evaluation/return,1,0\n2,evaluation/return,2,0\n")
    assert command.value_of(tmp_path, "final") == 7.0
    assert command.value_of(tmp_path, "mean") == 1.5
    (tmp_path / "evaluation.json").write_text('{"return_mean": null}')
    assert str(command.value_of(tmp_path, "final")) == "nan"


def test_a_dry_run_checks_the_shipped_file(capfd, tmp_path):
    file = Path(__file__).parents[3] / "configs/search/cartpole.yaml"
    assert main(["search", str(file), "--dry-run", "--runs", str(tmp_path), "--jobs", "2"]) == 0
    expected = f"40 trials in {tmp_path}/cartpole, 2 at a time: all 24 corners of the space are valid\n"
    assert capfd.readouterr().out == expected
    assert list(tmp_path.iterdir()) == []
