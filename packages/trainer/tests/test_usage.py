"""Messages that a person acts on: exit codes of wrong usage, and commands that can be pasted into a shell."""

import shlex
import signal
from types import SimpleNamespace

import pytest

from tesserl_configs import ConfigError
from tesserl_trainer.cli import main
from tesserl_trainer.commands.sweep_directory import refuse_others
from tesserl_trainer.commands.train import Interrupted
from tesserl_trainer.run.files import check_places
from tesserl_trainer.run.usage import command_line


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
