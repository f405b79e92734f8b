"""Learning from preferences: stored and fresh pairs, and what the loop makes of them."""

import json
import shutil

import numpy as np
import pytest
import torch

from tesserl_configs import ConfigError, load_config
from tesserl_preference_data import append_label, load_pairs
from tesserl_storage.errors import StorageError
from tesserl_trainer import evaluate, train
from tesserl_training.checkpoints.checkpoint import load_checkpoint
from tesserl_training.checkpoints.run_checkpoints import Checkpoints
from tesserl_training.journal import DivergenceError

from .test_on_policy import metrics_of
from .test_resume import halves_equal_the_whole, killed_and_resumed, outcome

CONFIG = """
name: tiny
seed: 3
total_steps: 240
environment: {id: ENV, num_envs: 3}
nn: {vector: {kind: mlp, hidden_sizes: [5]}}
algorithm: dpo
pairs: {source: {kind: offline, path: PATH}, holdout_fraction: 0.2}
dpo:
  beta: {kind: linear, knots: [[0, 0.3], [200, 0.1]]}
  batch_size: 7
optimizer: {kind: adam, learning_rate: 1.0e-3}
evaluation: {interval: 60, episodes: 2, final_episodes: 3, seed: 100, num_envs: 2, max_episode_steps: 50}
checkpoint: {interval: 40, keep_last: 2}
logging: {interval: 30, tensorboard: false}
"""
PENDULUM = {"environment": "Pendulum-v1"}


@pytest.fixture
def write(tmp_path, stores):
    """Writes a configuration that learns from stored pairs, and returns its path."""

    def write(environment: str = "CartPole-v1", **replacements: str):
        text = CONFIG.replace("ENV", environment).replace("PATH", str(stores / environment))
        for old, new in replacements.items():
            assert old in text, old
            text = text.replace(old, new)
        path = tmp_path / "tiny.yaml"
        path.write_text(text)
        return path

    return write


def dpo(text: str) -> dict[str, str]:
    return {"  batch_size: 7": f"  batch_size: 7\n  {text}"}


CPL = {
    "algorithm: dpo": "algorithm: cpl",
    "dpo:": "cpl:",
    "  beta: {kind: linear, knots: [[0, 0.3], [200, 0.1]]}\n": "",
}
BOTH = {"kind: offline,": "kind: both, num_groups: 2, buffer_size: 12, num_epochs: 2, offline_fraction: 0.3,"}
STATISTICS = {"hidden_sizes: [5]}": "hidden_sizes: [5], normalization: {kind: running}}"}
PRETRAINING = dpo("pretraining: {num_updates: 11}")

# --- batches and buffers -----------------------------------------------------------------------------------------


# --- training ----------------------------------------------------------------------------------------------------

VARIANTS = {
    "cpl": CPL,
    "cpl ranking": CPL | dpo("comparison: ranking"),
    "cpl, more terms": CPL | dpo("bc_coef: 0.1\n  value: {}\n  entropy_coef: 0.01\n  length_normalize: true"),
    "ipo": dpo("loss: {kind: ipo}"),
    "kto": dpo("loss: {kind: kto}"),
    "bco": dpo("loss: {kind: bco}"),
    "ld_alpha": dpo("ld_alpha: 0.5"),
    "weights": dpo("use_weighting: true"),
    "kto, moving": dpo("loss: {kind: kto}\n  reference: {kind: sync, interval: 9}"),
    "orpo": dpo("loss: {kind: orpo}\n  reference: {kind: none}"),
    "simpo": dpo("loss: {kind: simpo, gamma: 0.2}\n  reference: {kind: none}"),
    "discopop": dpo("loss: {kind: discopop, f_divergence: {kind: alpha_divergence}}"),
    "aot": dpo("loss: {kind: aot_unpaired, label_smoothing: 0.1}"),
    "no reference": dpo("reference: {kind: none}\n  nll_coef: 0.1"),
    "value": dpo("value: {discount: 0.9}\n  discount: 0.9\n  length_normalize: true"),
    "bfloat16": dpo("precision: bfloat16"),
    "nothing held out": {"holdout_fraction: 0.2": "holdout_fraction: 0"},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_trains(write, tmp_path, changes):
    metrics = metrics_of(train(load_config(write(**changes), ["total_steps=60"]), run_dir=tmp_path / "run"))
    assert all(np.isfinite(values).all() for values in metrics.values())
    assert metrics["train/updates"] == [30, 60]
    assert metrics["train/pairs/epochs"] == pytest.approx(
        [30 * 7 / metrics_pairs(changes), 60 * 7 / metrics_pairs(changes)]
    )
    assert ("held_out/loss" in metrics) == ("holdout_fraction: 0.2" not in changes)
    assert ("train/value_loss" in metrics) == ("value" in str(changes))


def metrics_pairs(changes) -> int:
    """Pairs that are learned from."""
    return 60 if "holdout_fraction: 0.2" in changes else 48


@pytest.mark.parametrize("kind", ["frozen", "sync", "moving_average"])
def test_the_first_update_finds_the_policy_at_its_reference(write, tmp_path, kind):
    """At the first update the loss is ln 2, with a frozen reference for as long as the learning rate is tiny."""
    changes = dpo(f"reference: {{kind: {kind}}}") | STATISTICS | {"learning_rate: 1.0e-3": "learning_rate: 1.0e-12"}
    metrics = metrics_of(train(load_config(write(**changes), ["total_steps=30"]), run_dir=tmp_path / "run"))
    assert metrics["train/loss"] == pytest.approx([np.log(2)], abs=1e-5)
    assert metrics["held_out/loss"] == pytest.approx([np.log(2)], abs=1e-5)


@pytest.mark.parametrize("distribution", ["normal", "tanh_normal"])
def test_continuous_actions(write, tmp_path, distribution):
    changes = dpo(f"distribution: {{kind: {distribution}}}\n  pretraining: {{num_updates: 3}}") | STATISTICS
    metrics = metrics_of(train(load_config(write("Pendulum-v1", **changes)), run_dir=tmp_path / "run"))
    assert metrics["train/rewards/accuracies"][-1] > 0.6
    assert set(metrics) >= {"pretraining/nll_loss", "pretraining/held_out/nll_loss", "held_out/rewards/accuracies"}


def test_pairs_are_learned(write, tmp_path):
    metrics = metrics_of(
        train(load_config(write(), ["dpo.beta=1", "optimizer.learning_rate=0.01"]), run_dir=tmp_path / "run")
    )
    assert metrics["train/loss"][-1] < metrics["train/loss"][0]
    assert metrics["train/rewards/accuracies"][-1] > 0.7


def test_statistics_are_those_of_the_stored_steps(write, tmp_path, stores):
    run_dir = train(load_config(write(**STATISTICS), ["total_steps=3"]), run_dir=tmp_path / "run")
    networks = load_checkpoint(Checkpoints(run_dir).latest()).state["networks"]
    steps = load_pairs(stores / "CartPole-v1").pool.blocks[0].steps["observation"]
    means = {name: value for name, value in networks.items() if name.endswith(".mean")}
    assert len(means) == 2, sorted(means)  # of the policy and of its reference
    for mean in means.values():
        torch.testing.assert_close(mean, steps.double().mean(dim=0))


def test_ties_are_kept_and_count_for_no_accuracy(write_config, tmp_path):
    """Every comparison ties: nothing is preferred, nothing is undefined."""
    changes = {"teacher: {beta: 10.0, mistake: 0.1}": "teacher: {equal: 10.0}"}
    config = load_config(write_config(algorithm="cpl", **changes))
    metrics = metrics_of(train(config, run_dir=tmp_path / "run"))
    assert metrics["train/updates"][-1] > 0
    assert "train/rewards/accuracies" not in metrics


def test_segments_that_are_too_long_make_no_pairs(write_config, tmp_path):
    changes = {"kind: variable, min_length: 5, max_length: 9": "kind: fixed, length: 501"}
    metrics = metrics_of(train(load_config(write_config(algorithm="cpl", **changes)), run_dir=tmp_path / "run"))
    assert metrics["train/pairs/made"][-1] == metrics["train/updates"][-1] == 0


def test_a_teacher_without_pairs_to_judge_makes_none(write_config, tmp_path):
    config = load_config(write_config(algorithm="cpl"), ["pairs.source.min_margin=1e6", "pairs.source.ties=drop"])
    metrics = metrics_of(train(config, run_dir=tmp_path / "run"))
    assert metrics["train/pairs/made"][-1] == metrics["train/updates"][-1] == 0


def test_a_loss_that_is_not_finite_stops_the_run(write, tmp_path):
    changes = {
        "learning_rate: 1.0e-3": "learning_rate: 1.0e+3",
        "checkpoint: {interval: 40": "checkpoint: {interval: 1",
    }
    squared = ["dpo.loss={kind: ipo}", "nn.learning_rate_factors={heads: 1e9, vector: 1e9}", "dpo.max_grad_norm=null"]
    with pytest.raises(DivergenceError, match="the loss is not finite at step"):
        train(load_config(write(**changes), squared), run_dir=tmp_path / "run")


# --- pairs that do not fit ---------------------------------------------------------------------------------------


def test_pairs_that_are_not_there_are_refused(write, tmp_path):
    with pytest.raises(ConfigError, match=r"pairs.source.path: .*nowhere"):
        train(load_config(write(), ["pairs.source.path=nowhere"]), run_dir=tmp_path / "run")


def test_pairs_of_another_task_are_refused(write, tmp_path, stores):
    config = load_config(write(), [f"pairs.source.path={stores / 'Pendulum-v1'}"])
    with pytest.raises(ConfigError, match=r"expected observation of the shape \(4,\), got \(3,\)"):
        train(config, run_dir=tmp_path / "run")


def test_a_run_does_not_continue_with_other_labels(write, tmp_path, stores):
    pairs = shutil.copytree(stores / "CartPole-v1", tmp_path / "pairs")
    config = load_config(write(), [f"pairs.source.path={pairs}", "total_steps=40"])
    run_dir = train(config, run_dir=tmp_path / "run")
    append_label(pairs, 3, "tie", source="somebody")
    longer = load_config(write(), [f"pairs.source.path={pairs}", "total_steps=60"])  # the run of 40 steps is finished
    with pytest.raises(StorageError, match="these are not the pairs that the run began with"):
        train(longer, run_dir=run_dir, resume=True)


# --- exact resume ------------------------------------------------------------------------------------------------

RESUMED = {
    "offline": {},
    "pretrained, statistics": PRETRAINING | STATISTICS,
    "moving reference": dpo("reference: {kind: moving_average, interval: 7}"),
    "kto": dpo("loss: {kind: kto}\n  reference: {kind: sync, interval: 70}"),
    "bco": dpo("loss: {kind: bco}"),
    "cpl": CPL | dpo("comparison: ranking\n  value: {}"),
}


@pytest.mark.parametrize("changes", RESUMED.values(), ids=RESUMED)
def test_n_updates_and_n_updates_are_two_n_updates(write, tmp_path, changes):
    result = halves_equal_the_whole(load_config(write(**changes)), tmp_path, 120)
    assert result["step"] == 240


def test_it_holds_for_continuous_actions(write, tmp_path):
    halves_equal_the_whole(load_config(write("Pendulum-v1", **PRETRAINING)), tmp_path, 120)


@pytest.mark.parametrize("changes", [BOTH, BOTH | PRETRAINING | STATISTICS], ids=["both", "both, pretrained"])
def test_stored_and_fresh_pairs_continue_too(write, tmp_path, changes):
    config = load_config(write(**changes))
    whole = outcome(train(config, run_dir=tmp_path / "whole"))
    assert {"train/pairs/epochs", "train/pairs/made"} <= {name for _, name, _ in whole["metrics"]}
    run_dir = train(config, run_dir=tmp_path / "again")
    kept = sorted((run_dir / "checkpoints").glob("step_*"))[-2]
    (run_dir / "evaluation.json").unlink()
    train(config, run_dir=run_dir, resume=kept.name)
    assert outcome(run_dir) == whole


@pytest.mark.parametrize(
    ("source", "moment", "number"),
    [("offline", "checkpoint", 8), ("offline", "pointer", 3), ("online", "collect", 3), ("online", "log", 5)],
)
def test_a_killed_run_ends_like_one_that_was_not(write, write_config, tmp_path, source, moment, number):
    config = write(**PRETRAINING) if source == "offline" else write_config(algorithm="dpo")
    whole = outcome(train(load_config(config), run_dir=tmp_path / "whole"))
    killed_and_resumed(config, tmp_path / "killed", moment, number)
    assert outcome(tmp_path / "killed") == whole


# --- weights of another run --------------------------------------------------------------------------------------


def test_a_run_starts_from_the_weights_of_another(write, write_config, tmp_path):
    first = train(load_config(write(), ["total_steps=30"]), run_dir=tmp_path / "first")
    same = ["optimizer.learning_rate=1e-12", f"initial_weights={first}"]
    second = train(load_config(write(), [*same, "total_steps=30"]), run_dir=tmp_path / "second")
    assert evaluate(second, episodes=5)["returns"] == evaluate(first, episodes=5)["returns"]
    train(load_config(write(), [*same, "total_steps=60"]), run_dir=second, resume=True)
    ppo = load_config(
        write_config(algorithm="ppo"), [f"initial_weights={first}", "nn.heads.hidden_sizes=[]", "total_steps=30"]
    )
    assert json.loads((train(ppo, run_dir=tmp_path / "ppo") / "evaluation.json").read_text())["episodes"] == 3


def test_weights_that_do_not_fit_are_refused(write, tmp_path):
    first = train(load_config(write(), ["total_steps=10"]), run_dir=tmp_path / "first")
    with pytest.raises(ConfigError, match=r"initial_weights: the network of .* is another one than that of nn"):
        train(
            load_config(write(), [f"initial_weights={first}", "nn.vector.hidden_sizes=[6]"]), run_dir=tmp_path / "run"
        )
    with pytest.raises(ConfigError, match=r"initial_weights: expected a run .*, there is none at .*nowhere"):
        train(load_config(write(), ["initial_weights=nowhere"]), run_dir=tmp_path / "run")
