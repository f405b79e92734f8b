"""Files that a run leaves, and messages when it cannot continue."""

import json
from pathlib import Path

import pytest
import torch

from tesserl_analysis.record import read_metrics, series
from tesserl_configs import ConfigError, RunConfig, load_config
from tesserl_storage.errors import StorageError
from tesserl_trainer import build_network, evaluate, train
from tesserl_trainer.algorithms.environments import make_environments
from tesserl_trainer.algorithms.run import run_title
from tesserl_trainer.running.run_directory import run_config
from tesserl_training.journal import DivergenceError
from tesserl_training.loops.off_policy import OffPolicyLoop


@pytest.fixture
def run_dir(write_config, tmp_path) -> Path:
    return train(load_config(write_config()), run_dir=tmp_path / "run")


def test_a_run_leaves_its_config_metrics_checkpoints_evaluation_and_curve(run_dir):
    config = load_config(run_dir / "config.yaml")
    assert (config.name, config.seed, config.total_steps) == ("tiny", 3, 240)
    assert (run_dir / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert (run_dir / "metrics.csv").read_text().startswith("step,name,value,time\n30,")
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    assert list(evaluation) == [
        "return_mean",
        "return_std",
        "returns",
        "lengths",
        "episodes",
        "seed",
        "checkpoint",
        "last_return_mean",
        "run_id",
        "sha256",
    ]
    assert len(evaluation["returns"]) == len(evaluation["lengths"]) == evaluation["episodes"] == 3
    assert evaluation["return_mean"] == pytest.approx(sum(evaluation["returns"]) / 3)
    assert evaluation["returns"] == [float(length) for length in evaluation["lengths"]]
    assert evaluation["seed"] == 1_000_100


@pytest.mark.parametrize("algorithm", ["iqn", "ppo", "grpo"])
def test_returns_of_training_are_in_the_units_of_evaluations(write_config, tmp_path, algorithm):
    wrappers = "environment.wrappers=[{kind: reward_scale, scale: 0.5}, {kind: reward_scale, scale: 0.5}]"
    run = train(load_config(write_config(algorithm=algorithm), [wrappers]), run_dir=tmp_path / "run")
    found = {name: series(read_metrics(run / "metrics.csv"), f"train/{name}")[1] for name in ("return", "length")}
    assert len(found["return"]) > 1
    assert found["return"] == pytest.approx(found["length"])  # a step of CartPole is worth 1


def test_evaluating_again_gives_the_same_returns(run_dir):
    stored = json.loads((run_dir / "evaluation.json").read_text())
    again = evaluate(run_dir, episodes=3)
    assert again == {key: stored[key] for key in again}
    assert evaluate(run_dir, episodes=2, seed=7)["seed"] == 7
    assert evaluate(run_dir, episodes=3, checkpoint="latest")["return_mean"] == stored["last_return_mean"]


def test_two_runs_of_one_seed_are_equal_and_two_seeds_are_not(write_config, tmp_path):
    config = load_config(write_config())
    runs = [train(config, run_dir=tmp_path / name) for name in ("a", "b")]
    runs.append(train(config.model_copy(update={"seed": 4}), run_dir=tmp_path / "c"))
    digests = []
    for path in runs:
        manifest = json.loads((path / "checkpoints/step_000000240/manifest.json").read_text())
        digests.append(manifest["files"]["networks.safetensors"]["sha256"])
    assert digests[0] == digests[1] != digests[2]


def test_runs_of_one_name_stand_side_by_side(write_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(write_config(), ("total_steps=60",))
    assert [str(train(config)) for _ in range(2)] == ["runs/tiny", "runs/tiny-2"]


def test_a_directory_that_holds_something_is_not_overwritten(write_config, run_dir):
    with pytest.raises(ConfigError, match=r"is not empty; continue the run there with --resume"):
        train(load_config(write_config()), run_dir=run_dir)


def test_a_run_that_goes_on_has_no_result_until_it_is_over(run_dir, monkeypatch):
    config, result = run_config(run_dir), (run_dir / "evaluation.json").read_text()
    train(config, run_dir=run_dir, resume=True)
    assert (run_dir / "evaluation.json").read_text() == result
    monkeypatch.setattr(OffPolicyLoop, "save", lambda loop: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(config.model_copy(update={"total_steps": 300}), run_dir=run_dir, resume=True)
    assert not (run_dir / "evaluation.json").exists()


@pytest.mark.parametrize("kind", ["uniform", "prioritized"])
def test_a_diverging_run_names_the_step_and_the_last_finite_checkpoint(write_config, tmp_path, kind):
    changes = {
        "learning_rate: 1.0e-3": "learning_rate: 1.0e+3",
        "[11]}": "[11]}\n  learning_rate_factors: {heads: 1.0e+9}",
        "warmup_steps: 30": "warmup_steps: 60",
    }
    config = load_config(write_config(**changes))
    replay = {"kind": kind, "capacity": config.replay.capacity, "warmup_steps": 60}
    config = RunConfig.model_validate({**config.model_dump(), "replay": replay})
    with pytest.raises(DivergenceError, match=r"not finite at step \d+ \(update \d+\); .* is .*step_000000060; lower"):
        train(config, run_dir=tmp_path / "run")


def test_without_a_run_or_a_checkpoint_evaluation_says_so(run_dir, tmp_path):
    with pytest.raises(StorageError, match=r"expected a run, got a directory without config\.yaml"):
        evaluate(tmp_path)
    with pytest.raises(StorageError, match=r"no checkpoint 'step_1'; there are: step_000000\d+, step_000000240"):
        evaluate(run_dir, checkpoint="step_1")
    with pytest.raises(ValueError, match="episodes must be at least 1, got 0"):
        evaluate(run_dir, episodes=0)


def network(path, *overrides):
    config = load_config(path, overrides)
    environments = make_environments(config.environment, 1)
    return build_network(config, environments.single_observation_space, environments.single_action_space)


def test_the_network_is_that_of_the_file(write_config):
    built = network(write_config())
    assert [tuple(p.shape) for p in built.body.parameters()] == [(5, 4), (5,)]
    assert built(torch.zeros(2, 3, 4), taus=torch.rand(2, 3, 6)).shape == (2, 3, 6, 2)
    pixels = network(write_config("MinAtar/Breakout-v1"))
    assert pixels(torch.zeros(2, 4, 10, 10, dtype=torch.uint8), torch.rand(2, 6)).shape == (2, 6, 3)


def test_observations_without_a_branch_and_branches_without_an_observation_are_refused(write_config):
    vision = "nn.vision={kind: cnn, channels: [5], kernel_sizes: [3], strides: [1]}"
    with pytest.raises(
        ConfigError, match=r"nn.vision.kind: cnn needs pixels, .* hold only observation; set it to none"
    ):
        network(write_config(), vision)
    with pytest.raises(
        ConfigError, match=r"nn.vision.kind: the task's observations hold pixels \(4, 10, 10\), got none"
    ):
        network(write_config("MinAtar/Breakout-v1"), "nn.vision={kind: none}", "nn.vector={kind: mlp}")
    with pytest.raises(ConfigError, match=r"nn.vision: .*"):
        network(write_config("MinAtar/Breakout-v1"), "nn.vision.kernel_sizes=[12]")
    with pytest.raises(ConfigError, match=r"nn.vector.normalization.mean: expected 4 numbers, one per feature, got 2"):
        network(write_config(), "nn.vector.normalization={kind: fixed, mean: [0, 0], std: [1, 1]}")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ("{id: CartPole-v9}", r"environment.id: .*CartPole"),
        ("{id: Pendulum-v1}", r"environment.id: iqn needs a Discrete action space .* got Box"),
        ("{id: CartPole-v1, kwargs: {gravity: 3}}", r"environment.kwargs: CartPole-v1 does not take .*gravity"),
    ],
)
def test_tasks_that_do_not_fit_are_refused(write_config, tmp_path, environment, message):
    path = write_config(**{"{id: CartPole-v1, num_envs: 3}": environment})
    with pytest.raises(ConfigError, match=message):
        train(load_config(path), run_dir=tmp_path / "run")


@pytest.mark.parametrize(
    ("environment", "extra"),
    [("MinAtar/Breakout-v1", "minatar"), ("LunarLander-v3", "box2d"), ("Hopper-v5", "mujoco")],
)
def test_a_missing_extra_is_named(write_config, environment, extra, monkeypatch):
    import gymnasium

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(gymnasium, "registry", {k: v for k, v in gymnasium.registry.items() if "MinAtar" not in k})

    def missing(*args, **kwargs):
        if extra == "mujoco":
            raise ModuleNotFoundError("No module named 'imageio'")
        raise gymnasium.error.DependencyNotInstalled("Box2D is not installed")

    monkeypatch.setattr(gymnasium, "make", missing)
    config = load_config(write_config(), (f"environment.id={environment}",))
    with pytest.raises(ConfigError, match=rf'install "tesserl-environments\[{extra}\]"'):
        make_environments(config.environment, 1)


def test_a_device_that_is_not_there_is_refused(write_config, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    with pytest.raises(ConfigError, match=r"device: cuda is not there .* set device to cpu"):
        train(load_config(write_config(), ("device=cuda",)), run_dir=tmp_path / "run")


def test_frozen_parts_do_not_move_and_freezing_everything_is_refused(write_config, tmp_path):
    config = load_config(write_config(), ("nn.freeze=[vector]",))
    run_dir = train(config, run_dir=tmp_path / "run")
    from tesserl_training.checkpoints.checkpoint import load_networks

    early = load_networks(run_dir / "checkpoints/step_000000240")
    key = "value_network_params.body.vector.mlp.layers.0.weight"
    assert torch.equal(early[key], early[f"target_{key}"])
    head = "value_network_params.embedding.weight"
    assert not torch.equal(early[head], early[f"target_{head}"])
    with pytest.raises(ConfigError, match="every part is frozen"):
        train(load_config(write_config(), ("nn.freeze=[vector, embedding, heads]",)), run_dir=tmp_path / "none")


@pytest.mark.parametrize(
    ("path", "title"), [("runs/ppo-2", "ppo-2"), ("runs/sweep/lander/ppo/seed-3", "ppo-seed-3"), ("try", "ppo-try")]
)
def test_the_title_of_a_run_tells_it_from_others(path, title):
    assert run_title("ppo", Path(path)) == title
