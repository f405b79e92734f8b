"""Messages that a person acts on: exit codes of wrong usage, and commands that can be pasted into a shell."""

import shlex
import signal
from types import SimpleNamespace

import pytest

from tesserl_configs import ConfigError
from tesserl_trainer.cli import main
from tesserl_trainer.running.run_to_end import Interrupted
from tesserl_trainer.sweep.directory import refuse_others
from tesserl_trainer.usage import check_places, command_line

from .stores import write_trajectories

pytestmark = pytest.mark.kernel_free


@pytest.fixture
def spaced(tmp_path):
    """A directory whose name a shell would take apart."""
    place = tmp_path / "my runs; it's"
    place.mkdir()
    return place


def test_a_command_in_a_message_is_one_that_a_shell_takes_apart_into_its_words(spaced):
    words = ["tesserl", "train", "--resume", str(spaced)]
    assert shlex.split(command_line(*words)) == words
    assert command_line("tesserl", "train", "--resume", "runs/x") == "tesserl train --resume runs/x"


def test_a_stopped_run_names_the_command_that_continues_it(spaced):
    _, _, command = str(Interrupted(signal.SIGTERM, spaced / "run")).partition("continue with: ")
    assert shlex.split(command) == ["tesserl", "train", "--resume", str(spaced / "run")]


def test_a_run_directory_that_is_taken_names_the_option_that_continues_it(spaced, write_config, capfd):
    (spaced / "notes.txt").write_text("mine")
    assert main(["train", str(write_config()), "--run-dir", str(spaced)]) == 2
    command = capfd.readouterr().err.partition("continue the run there with ")[2].partition(", or name")[0]
    assert shlex.split(command) == ["--resume", str(spaced)]


def test_a_sweep_names_the_command_that_continues_a_run(spaced):
    checkpoint = spaced / "base/seed-1/checkpoints/step_000000060"
    checkpoint.mkdir(parents=True)
    sweep = SimpleNamespace(runs=[SimpleNamespace(path=checkpoint.parents[1].relative_to(spaced))])
    with pytest.raises(ConfigError) as caught:
        refuse_others(sweep, spaced)
    assert shlex.split(str(caught.value).split("`")[1]) == ["tesserl", "train", "--resume", str(checkpoint)]


def test_a_missing_directory_names_the_command_that_makes_it(spaced):
    with pytest.raises(ValueError, match="there is no directory") as caught:
        check_places({"--out": spaced / "new one" / "x.png"})
    _, _, command = str(caught.value).partition("make it first: ")
    assert shlex.split(command) == ["mkdir", "-p", str(spaced / "new one")]


NO_RUN = "expected a run, got "
NO_RUNS = "expected runs, got "
SEGMENT = "--segment must be episode, fixed:LENGTH or variable:LEAST:MOST"
FACTOR = "--by must be return, discounted:FACTOR, to_go, to_go:FACTOR or regret:RUN with a factor in [0, 1]"
WRONG_USAGE = {
    # a place that is not there, or that holds something else
    "train --resume NOWHERE": NO_RUN + "no such directory; name the directory of a run",
    "train --resume FILE": NO_RUN + "a file; name the directory of a run",
    "train --resume EMPTY": NO_RUN + "a directory without config.yaml; name the directory of a run",
    "train NOWHERE": "nowhere",
    "train CONFIG --run-dir EMPTY/..": "is not empty; continue the run there with --resume",
    "search NOWHERE": "nowhere",
    "sweep NOWHERE": "nowhere",
    "eval NOWHERE": NO_RUN + "no such directory; name the directory of a run",
    "watch NOWHERE": NO_RUN + "no such directory; name the directory of a run",
    "report NOWHERE": NO_RUN + "no such directory; name the directory of a run",
    "export NOWHERE --format pt2": NO_RUN + "no such directory; name the directory of a run",
    "export NOWHERE --format pt2 --output FILE": "is there already; replace it with --overwrite, or name another file",
    "export NOWHERE --format pt2 --output NOWHERE/x": "there is no directory",
    "collect NOWHERE --out OUT --episodes 1": "does not exist",
    "collect EMPTY --out OUT --episodes 1": NO_RUN + "a directory without config.yaml; name the directory of a run",
    "compare NOWHERE": NO_RUNS + "no such directory; name a run or a sweep",
    "compare EMPTY": NO_RUNS + "a directory without config.yaml in or below it; name a run or a sweep",
    "compare NOWHERE --json NOWHERE/x": "there is no directory",
    "observe CONFIG --out NOWHERE/x": "there is no directory",
    "observe NOWHERE --out OUT": "nowhere",
    "pairs make NOWHERE --out OUT": "holds no trajectories",
    "pairs make STORE --out EMPTY": "exists, pairs are not overwritten; name another directory",
    "pairs inspect NOWHERE": "holds no pairs",
    "pairs label NOWHERE --no-open": "holds no pairs",
    "pretrain bc CONFIG --pairs NOWHERE --trajectories NOWHERE": "name either --pairs or --trajectories",
    "config validate NOWHERE": "nowhere",
    # a value of a wrong form or out of its range
    "pairs make STORE --out OUT --segment half": SEGMENT,
    "pairs make STORE --out OUT --segment fixed:0": SEGMENT,
    "pairs make STORE --out OUT --segment variable:5:3": SEGMENT,
    "pairs make STORE --out OUT --by mean": FACTOR,
    "pairs make STORE --out OUT --by discounted:2": FACTOR,
    "pairs make STORE --out OUT --by discounted:nan": FACTOR,
    "pairs make STORE --out OUT --by to_go:2": FACTOR,
    "pairs make STORE --out OUT --by regret": FACTOR,
    "pairs make STORE --out OUT --by regret:NOWHERE": NO_RUN + "no such directory; name the directory of a run",
    "pairs make STORE --out OUT --teacher strict": "--teacher must be one of oracle",
    "pairs make STORE --out OUT --teacher mistake:2": "--teacher mistake:2: mistake must be in [0, 1]",
    "pairs make STORE --out OUT --min-margin nan": "--min-margin",
    "pairs label STORE --out OUT --no-open --segment half": SEGMENT,
    "collect CONFIG --random --out OUT --episodes 3 --same-start 2": "episodes must be a multiple of same_start",
    "collect CONFIG --out OUT --episodes 3": "has no trained policy; name a run, or play with --random",
    "export EMPTY --format pt2 --taus 0": "--taus",
    "observe CONFIG --out OUT --samples 0": "--samples",
}
FAILURES = {
    "pairs make STORE --out OUT --num 1000": "1000 pairs were asked for, 3 can be made",
    "pairs make STORE --out OUT --segment fixed:50": "trajectories must have at least 50 steps",
    "eval DAMAGED": "config.yaml: missing; put it back, or name the directory of another run",
}


@pytest.fixture
def places(tmp_path, write_config):
    """Names of a command's arguments -> paths."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/run.json").write_text("{}")
    (tmp_path / "file").write_text("")
    write_trajectories(tmp_path / "store", [4, 6, 8])
    names = ("nowhere", "empty", "file", "store", "out", "damaged")
    return {"CONFIG": str(write_config()), **{name.upper(): str(tmp_path / name) for name in names}}


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        *((command, 2, message) for command, message in WRONG_USAGE.items()),
        *((command, 1, message) for command, message in FAILURES.items()),
    ],
)
def test_wrong_usage_is_exit_code_2_and_a_failure_1(places, tmp_path, capfd, command, code, message):
    words = command.split()
    for name, path in places.items():
        words = [word.replace(name, path) if word.partition("/")[0] == name else word for word in words]
    assert main(words) == code, capfd.readouterr().err
    error = capfd.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_an_end_of_file_inside_of_a_command_is_a_failure_and_no_signal(monkeypatch, capfd):
    def cut_short(*_):
        raise EOFError("Ran out of input")

    monkeypatch.setattr("tesserl_trainer.inspect.doctor.examine", cut_short)
    assert main(["doctor"]) == 1
    assert "Ran out of input" in capfd.readouterr().err
