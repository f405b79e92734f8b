"""``tesserl config``."""

import importlib.util
import json
import subprocess
import sys

import pytest

from tesserl_configs import load_config
from tesserl_trainer.cli import main

pytestmark = pytest.mark.kernel_free

GOOD = """\
total_steps: 1_000
environment: {id: CartPole-v1}
nn: {vector: {kind: mlp}}
algorithm: iqn
replay: {kind: uniform, warmup_steps: 100}
"""


@pytest.fixture
def files(tmp_path):
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(GOOD)
    bad.write_text(GOOD + "seed: -1\niqn: {num_tau: 3}\n")
    return good, bad


def test_validate_says_which_files_are_valid(files, capsys):
    assert main(["config", "validate", str(files[0])]) == 0
    assert capsys.readouterr().out == f"{files[0]}: valid\n"


def test_validate_checks_all_files_and_lists_all_errors(files, capsys):
    good, bad = files
    assert main(["config", "validate", str(bad), str(good)]) == 2
    captured = capsys.readouterr()
    assert captured.out == f"{bad}: 2 errors\n{good}: valid\n"
    assert captured.err.splitlines() == [
        f"{bad}:6: seed: expected a value >= 0, got -1; seed of all random numbers of the run, >= 0",
        f"{bad}:7: iqn.num_tau: unknown key; did you mean num_taus?",
    ]


def test_validate_prints_json(files, capsys):
    good, bad = files
    assert main(["config", "validate", "--json", str(good), str(bad)]) == 2
    captured = capsys.readouterr()
    first, second = json.loads(captured.out)
    assert first == {"file": str(good), "valid": True, "errors": [], "warnings": []}
    assert (second["valid"], len(second["errors"])) == (False, 2)
    assert captured.err == ""


MISSING = {
    "initial_weights=no/run": (
        "initial_weights",
        "expected a run or a checkpoint of one, there is none at /",
    ),
    "logging.wandb=true": (
        "logging.wandb",
        'needs Weights & Biases, which is not installed; install "tesserl-trainer[wa',
    ),
    "logging.mlflow=true": ("logging.mlflow", 'needs MLflow, which is not installed; install "tesserl-trainer[mlf'),
    "logging.trackio=true": ("logging.trackio", 'needs trackio, which is not installed; install "tesserl-trainer[tra'),
    "device=cuda:7": ("device", "cuda:7 is not there (torch "),
    "environment.id=MinAtar/Breakout-v1": ("environment.id", "needs MinAtar, which is not installed; install "),
    "environment.id=ALE/Pong-v5": ("environment.id", "needs ale_py, which is not installed; install "),
    "environment.id=LunarLander-v3": ("environment.id", "needs Box2D, which is not installed; install "),
    "environment.id=Hopper-v5": ("environment.id", "needs MuJoCo, which is not installed; install "),
    "environment.imports=[minigrid]": (
        "environment.imports",
        'needs MiniGrid, which is not installed; install "tesserl-trainer[minigrid]"',
    ),
    "environment.imports=[highway_env]": (
        "environment.imports",
        'needs highway-env, which is not installed; install "tesserl-trainer[highway]"',
    ),
    "environment.vectorization=envpool": (
        "environment.vectorization",
        "needs envpool, which is not installed; install ",
    ),
}


@pytest.fixture
def bare_machine(monkeypatch):
    """A machine without the packages of any extra."""
    found = importlib.util.find_spec
    extras = ["wandb", "mlflow", "trackio", "envpool", "ale_py", "minatar", "Box2D"]
    extras += ["mujoco", "minigrid", "highway_env"]
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, package=None: None if name in extras else found(name, package)
    )


@pytest.mark.parametrize(("override", "expected"), MISSING.items(), ids=MISSING)
def test_what_this_machine_does_not_have_is_a_warning_and_stops_training(
    files, bare_machine, tmp_path, capsys, override, expected
):
    key, message = expected
    assert main(["config", "validate", str(files[0]), "--set", override]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith(f"warning: --set {key}: {key}: {message}")
    assert captured.out == f"{files[0]}: valid\n"
    assert main(["config", "validate", str(files[0]), "--json", "--set", override]) == 0
    [report] = json.loads(capsys.readouterr().out)
    assert report["valid"]
    assert report["warnings"][0].startswith(f"--set {key}: {key}: {message}")
    run = tmp_path / "run"
    assert main(["train", str(files[0]), "--run-dir", str(run), "--set", override]) == 2
    assert capsys.readouterr().err.startswith(f"error: --set {key}: {key}: {message}")
    assert not run.exists()


def test_what_is_missing_has_the_line_where_it_is_asked_for(files, capsys):
    good = files[0]
    good.write_text(GOOD + "initial_weights: nowhere\n")
    assert main(["config", "validate", str(good)]) == 0
    assert capsys.readouterr().err.startswith(f"warning: {good}:6: initial_weights: expected a run")
    assert main(["train", str(good)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {good}:6: initial_weights: expected a run")


def test_stored_pairs_and_models_that_are_not_there_are_warnings(tmp_path, capsys):
    path = tmp_path / "c.yaml"
    path.write_text(
        "total_steps: 10\nenvironment: {id: CartPole-v1}\nalgorithm: dpo\n"
        "nn: {vision: {kind: hf, model: ./nowhere}}\npairs: {source: {kind: offline, path: nowhere}}\n"
    )
    assert main(["config", "validate", str(path)]) == 0
    pairs, model = capsys.readouterr().err.splitlines()
    assert pairs.startswith(
        f"warning: {path}:5: pairs.source.path: expected a directory of stored pairs, there is none"
    )
    assert model.startswith(f"warning: {path}:4: nn.vision.model: expected a directory, there is none at /")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_torch_is_imported_for_a_gpu_alone(files, device):
    code = (
        f"import sys; from tesserl_trainer.cli import main; main(['config', 'validate', {str(files[0])!r}, '--set', "
        f"'device={device}']); print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == str(device == "cuda"), result.stderr


def test_validate_applies_overrides(files, capsys):
    assert main(["config", "validate", str(files[0]), "--set", "iqn.discount=2", "--set", "seed=x"]) == 2
    err = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[0] for line in err] == ["--set seed", "--set iqn.discount"]


def test_show_prints_yaml_that_loads_to_the_same_configuration(files, capsys, tmp_path):
    assert main(["config", "show", str(files[0]), "--set", "seed=9"]) == 0
    shown = tmp_path / "shown.yaml"
    shown.write_text(capsys.readouterr().out)
    assert load_config(shown) == load_config(files[0], ["seed=9"])


def test_show_prints_json(files, capsys):
    assert main(["config", "show", "--json", str(files[0])]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["name"], data["total_steps"], data["replay"]["kind"]) == ("good", 1000, "uniform")


def test_show_of_a_bad_file_prints_nothing_to_stdout(files, capsys):
    assert main(["config", "show", str(files[1])]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {files[1]}:6: seed: ")


def test_schema_prints_a_json_schema(capsys):
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"]["total_steps"]["minimum"] == 1
    assert main(["config", "schema", "--sweep"]) == 0
    assert json.loads(capsys.readouterr().out)["required"] == ["seeds", "variants"]
    assert main(["config", "schema", "--search"]) == 0
    assert json.loads(capsys.readouterr().out)["required"] == ["config", "space", "trials"]


def test_diff_prints_each_difference_and_applies_overrides_to_the_second(files, capsys):
    good = str(files[0])
    assert main(["config", "diff", good, good]) == 0
    assert capsys.readouterr().out == ""
    assert main(["config", "diff", good, good, "--set", "seed=2", "--set", "nn.heads.hidden_sizes=[5]"]) == 0
    assert capsys.readouterr().out == "seed: 1 -> 2\nnn.heads.hidden_sizes: [512] -> [5]\n"


def test_diff_prints_json(files, capsys):
    good = str(files[0])
    main(["config", "diff", "--json", good, good, "--set", "seed=2"])
    assert json.loads(capsys.readouterr().out) == [{"path": "seed", "left": 1, "right": 2}]


def test_import_prints_the_file_to_stdout_and_the_report_to_stderr(tmp_path, capsys):
    seed, ours = tmp_path / "seed.yaml", tmp_path / "ours.yaml"
    seed.write_text("training: {run_name: a, batch_size: 64}\nperformance: {max_rollout_queue_size: 1}\n")
    assert main(["config", "import", str(seed), "--environment", "CartPole-v1"]) == 0
    captured = capsys.readouterr()
    ours.write_text(captured.out)
    assert load_config(ours).iqn.batch_size == 64
    report = captured.err.splitlines()
    assert "training.batch_size -> iqn.batch_size" in report
    assert any(line.startswith("performance.max_rollout_queue_size: ") for line in report)


@pytest.mark.parametrize(
    ("text", "code", "last"),
    [
        ("btr: {use_noisy_linear: true}\n", 0, "to mend: environment.wrappers: "),
        (
            "training: {pretrain_encoder_path: a}\nstate_normalization: {waypoint_std_40cp: [1.0]}\n",
            3,
            "not carried over: training.pretrain_encoder_path, state_normalization.waypoint_std_40cp",
        ),
        ("nn: {iqn: {n: 7}}\n", 3, "to mend: iqn.num_target_taus: expected an even number"),  # it does not load
        ("total_steps: 5\n", 2, "error: "),
    ],
)
def test_an_import_that_leaves_out_what_matters_has_an_exit_code_of_its_own(tmp_path, capsys, text, code, last):
    file = tmp_path / "seed.yaml"
    file.write_text(text)
    assert main(["config", "import", str(file), "--environment", "CartPole-v1"]) == code
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].startswith(last)
    assert bool(captured.out) == (code != 2)


def test_configurations_are_handled_without_torch(files):
    code = (
        f"import sys; from tesserl_trainer.cli import main; main(['config', 'show', {str(files[0])!r}]); "
        "print('HEAVY', [name for name in ('torch', 'numpy', 'gymnasium') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "HEAVY []", result.stderr


def test_explain_prints_a_key(capsys):
    assert main(["config", "explain", "ppo.clip_epsilon"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "  default   0.2",
        "  source    paper: 0.2; Atari: 0.1 falling to 0",
    ]


def test_explain_prints_json(capsys):
    assert main(["config", "explain", "--json", "replay.alpha"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert (found["path"], found["kinds"], found["default"]) == ("replay.alpha", ["prioritized"], "0.5")


def test_explain_answers_a_typo_with_the_nearest_key(capsys):
    assert main(["config", "explain", "ppo.clip_epsilo"]) == 2
    assert "did you mean ppo.clip_epsilon" in capsys.readouterr().err
