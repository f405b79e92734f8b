"""The command line as a whole: help, exit codes, streams."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import click
import pytest

import tesserl_trainer.cli as cli
from tesserl_configs import ConfigError
from tesserl_trainer import __version__
from tesserl_trainer.cli import COMMANDS, main, tesserl
from tesserl_trainer.signals import StopNow, Stopped

pytestmark = pytest.mark.kernel_free

HEAVY = ("torch", "torchrl", "tensordict", "gymnasium", "numpy", "matplotlib", "pydantic", "yaml")


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )


@pytest.fixture
def failing(monkeypatch):
    """Makes ``tesserl fail`` raise an error."""

    def fail_with(error: BaseException) -> None:
        def callback():
            raise error

        module = SimpleNamespace(command=click.Command("fail", callback=callback))
        monkeypatch.setitem(sys.modules, "tesserl_trainer.commands.fail", module)
        monkeypatch.setitem(COMMANDS, "fail", "Fail.")

    return fail_with


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["-h"], [], ["nonsense"]])
def test_help_imports_nothing_that_takes_long(arguments):
    code = f"import sys; from tesserl_trainer.cli import main; main({arguments}); "
    result = python(code + f"print('HEAVY', [name for name in {HEAVY} if name in sys.modules])")
    assert result.stdout.splitlines()[-1] == "HEAVY []", result.stderr


COMPLETE = """
import json, sys
from click.shell_completion import ShellComplete
from tesserl_trainer.cli import tesserl
shell = ShellComplete(tesserl, {}, "tesserl", "_TESSERL_COMPLETE")
found = {}
def complete(*arguments, incomplete):
    values = [item.value for item in shell.get_completions(list(arguments), incomplete)]
    found[" ".join([*arguments, incomplete])] = values
    return values
for name in complete(incomplete=""):
    complete(name, incomplete="--")
    if name in ("config", "pairs", "pretrain"):
        for inner in complete(name, incomplete=""):
            complete(name, inner, incomplete="--")
complete(incomplete="--")
complete(incomplete="co")
found["modules"] = [name for name in ("torch", "torchrl", "tensordict", "gymnasium", "pydantic") if name in sys.modules]
print(json.dumps(found))
"""


def test_completing_commands_and_options_imports_neither_torch_nor_the_schema():
    result = python(COMPLETE)
    found = json.loads(result.stdout)
    assert found["modules"] == []
    assert found[""] == list(COMMANDS)
    assert found["co"] == ["compare", "collect", "config"]
    assert found["--"] == ["--debug", "--version", "--help"]
    assert found["train --"] == ["--run-dir", "--resume", "--set", "--help"]
    assert found["pairs "] == ["inspect", "label", "make"]
    assert found["pairs inspect --"] == ["--json", "--help"]
    assert all(values for name, values in found.items() if name != "modules")


def test_the_shell_gets_its_completions_from_the_command():
    environment = {"_TESSERL_COMPLETE": "bash_complete", "COMP_WORDS": "tesserl sw", "COMP_CWORD": "1"}
    assert python("from tesserl_trainer.cli import main; main()", **environment).stdout == "plain,sweep\n"


def test_keys_of_the_schema_are_completed_level_by_level_without_torch():
    def completed(start: str) -> list[str]:
        words = {
            "COMP_WORDS": f"tesserl config explain {start}",
            "COMP_CWORD": "3",
            "_TESSERL_COMPLETE": "bash_complete",
        }
        code = "import sys; from tesserl_trainer.cli import main; import atexit; "
        result = python(f"{code}atexit.register(lambda: print('torch' in sys.modules)); main()", **words)
        *lines, has_torch = result.stdout.splitlines()
        assert has_torch == "False"
        return lines

    assert completed("ppo.clip") == ["plain,ppo.clip_epsilon", "plain,ppo.clip_epsilon_high"]
    assert completed("eva") == ["plain,evaluation"]


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for name, text in COMMANDS.items():
        assert f"{name} " in out
        assert text in out


@pytest.mark.parametrize("name", list(COMMANDS))
def test_the_table_says_of_each_command_what_the_command_says_of_itself(name):
    command = tesserl.get_command(click.Context(tesserl), name)
    assert (command.name, command.help) == (name, COMMANDS[name])


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help(name, capsys):
    assert main([name, "--help"]) == 0
    assert f"Usage: tesserl {name}" in capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tesserl {__version__}\n"


def test_the_console_script_runs_main():
    result = python("import sys; sys.argv = ['tesserl', '--version']; from tesserl_trainer.cli import main; main()")
    assert result.stdout == f"tesserl {__version__}\n"


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["train"], ["config", "show"]])
def test_wrong_usage_is_exit_code_2_with_the_usage_on_stderr(arguments, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(
        r"error: .+\nUsage: tesserl.+\n\(tesserl.* --help lists the options\)\n", captured.err, re.DOTALL
    )


def test_a_bad_configuration_is_exit_code_2_with_its_messages_only(failing, capsys):
    failing(ConfigError("x.yaml:1: one", "x.yaml:2: two"))
    assert main(["fail"]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "error: x.yaml:1: one\nx.yaml:2: two\n")


@pytest.mark.parametrize("error", [ValueError("a bad value"), OSError("a full disk")])
def test_a_foreseen_error_is_exit_code_1_without_a_traceback(failing, capsys, error):
    failing(error)
    assert main(["fail"]) == 1
    assert capsys.readouterr().err == f"error: {error}\n(tesserl --debug ... shows where)\n"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device", "runs/x"), "runs/x: no space left on device; free room there, then "),
        (FileNotFoundError(2, "No such file or directory", "runs/x"), "runs/x: no such file or directory; check the"),
        (PermissionError(13, "Permission denied", "runs/x"), "runs/x: permission denied; change its permissions, or"),
        (OSError(5, "Input/output error"), "input/output error\n"),
    ],
)
def test_an_error_of_the_system_is_one_sentence_with_the_file_and_the_remedy(failing, capsys, error, message):
    failing(error)
    assert main(["fail"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


def test_debug_shows_the_traceback_of_a_foreseen_error(failing, capsys):
    failing(ConfigError("x.yaml:1: one"))
    assert main(["--debug", "fail"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert "ConfigError: x.yaml:1: one" in err


def test_an_unforeseen_error_is_exit_code_1_with_its_traceback(failing, capsys):
    failing(KeyError("lost"))
    assert main(["fail"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("KeyError: 'lost'\n")


def test_an_error_of_ours_may_bring_its_exit_code(failing, capsys):
    class Late(Exception):
        exit_code = 7

    Late.__module__ = "tesserl_trainer.running.train"
    failing(Late("too late"))
    assert main(["fail"]) == 7
    assert capsys.readouterr().err == "error: too late\n"


@pytest.mark.parametrize(
    ("stop", "code", "told"),
    [
        (KeyboardInterrupt(), 130, "stopped by SIGINT"),
        (StopNow(signal.SIGTERM), 143, "stopped by SIGTERM"),
        (Stopped(signal.SIGHUP, "stopped by SIGHUP; continue"), 129, "stopped by SIGHUP; continue"),
    ],
)
def test_an_orderly_stop_is_a_sentence_and_no_error(failing, capsys, stop, code, told):
    failing(stop)
    assert main(["fail"]) == code
    assert capsys.readouterr().err.strip() == told


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_any_command_and_what_it_has_open(monkeypatch, capsys, number, code):
    closed = []

    def wait(*_args, **_options):
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        finally:
            closed.append(number)

    monkeypatch.setattr(cli.tesserl, "main", wait)
    before = signal.getsignal(number)
    assert main(["fail"]) == code
    assert closed == [number]
    assert signal.getsignal(number) is before
    assert capsys.readouterr().err.strip() == f"stopped by {number.name}"


@pytest.mark.parametrize(("no_color", "coloured"), [("1", False), ("", True)])
def test_no_color_forbids_colour(failing, capsys, monkeypatch, no_color, coloured):
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr("click.utils.should_strip_ansi", lambda stream=None, color=None: color is False)  # a terminal
    failing(ConfigError("x"))
    main(["fail"])
    assert ("\x1b[" in capsys.readouterr().err) is coloured


def test_a_group_does_not_import_what_it_is_not_asked_for(monkeypatch):
    monkeypatch.setitem(COMMANDS, "missing", "Never there.")
    context = click.Context(tesserl)
    assert tesserl.list_commands(context)[-1] == "missing"
    assert tesserl.get_command(context, "other") is None
    with pytest.raises(ModuleNotFoundError):
        tesserl.get_command(context, "missing")


HUGE = str(10**30)
OUT_OF_RANGE = [
    ["eval", "run", "--episodes", HUGE],
    ["eval", "run", "--seed", str(2**31)],
    ["collect", ".", "--out", "x", "--steps", HUGE],
    ["collect", ".", "--out", "x", "--episodes", "1", "--seed", str(2**63)],
    ["collect", ".", "--out", "x", "--episodes", "1", "--epsilon", "nan"],
    ["export", "run", "--taus", HUGE],
    ["observe", "c.yaml", "--steps", HUGE],
    ["pairs", "make", "x", "--out", "y", "--num", HUGE],
    ["pairs", "make", "x", "--out", "y", "--seed", HUGE],
    ["pairs", "make", "x", "--out", "y", "--min-margin", "nan"],
    ["pairs", "make", "x", "--out", "y", "--value-discount", "nan"],
    ["pairs", "label", "x", "--fps", "inf"],
    ["pretrain", "bc", "c.yaml", "--pairs", "x", "--updates", HUGE],
    ["pretrain", "bc", "c.yaml", "--pairs", "x", "--batch-size", HUGE],
    ["search", "s.yaml", "--jobs", HUGE],
    ["search", "s.yaml", "--trials", HUGE],
    ["sweep", "s.yaml", "--jobs", HUGE],
    ["topologies", "--vector", HUGE],
    ["topologies", "--image", f"1,{HUGE},1"],
]


@pytest.mark.parametrize("arguments", OUT_OF_RANGE, ids=lambda arguments: " ".join(arguments)[:40])
def test_a_number_that_no_machine_could_use_is_wrong_usage_by_its_option(capfd, arguments):
    assert main(arguments) == 2
    error = capfd.readouterr().err
    option = next(word for word in reversed(arguments) if word.startswith("--"))
    assert option in error
    assert "Traceback" not in error
