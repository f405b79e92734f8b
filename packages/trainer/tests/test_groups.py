"""Groups of trajectories: their starts on Atari, and what the loop makes of them."""

import numpy as np
import pytest

from tesserl_analysis.record import read_metrics
from tesserl_configs import ConfigError, load_config
from tesserl_environments import GroupStarts, StateStart
from tesserl_trainer import train
from tesserl_trainer.algorithms.environments import make_environments
from tesserl_trainer.algorithms.task import Task

from .test_on_policy import metrics_of


def test_atari_games_are_put_back_to_their_start(write_config):
    pytest.importorskip("ale_py")
    text = {"id: CartPole-v1": "id: ALE/Breakout-v5"}
    config = load_config(write_config("CartPole-v1", "grpo", **text))
    environments = make_environments(config.environment, 2, groups=True, starts="state")
    starts = GroupStarts(environments, StateStart(1), group_size=4)
    starts.begin(1)
    first, _ = starts.reset()
    first = first.copy()
    assert (first[0] == first[1]).all()
    for action in (1, 2, 2, 3, 1):
        moved = environments.step(np.array([action, action]))[0].copy()
    assert (moved[0] != first[0]).any()
    again, _ = starts.reset(options={"reset_mask": np.array([True, True])})
    assert (again == first).all()
    environments.close()


# --- the loop ----------------------------------------------------------------------------------------------------

VARIANTS = {
    "trajectory": {"kind: to_go": "kind: trajectory", "baseline: alive": "baseline: leave_one_out"},
    "linear": {"baseline: alive": "baseline: linear"},
    "visited": {"group_size: 4": "group_size: 4\n  starts: {kind: visited}", "baseline: alive": "baseline: linear"},
    "visited, replaced": {
        "group_size: 4": "group_size: 4\n  starts: {kind: visited, fraction: 0.7}\n  zero_variance: {kind: resample}\n"
        "  max_length: 30\n  truncation: bootstrap"
    },
    "gspo": {"loss: {kind: clip}": "loss: {kind: clip, importance_level: trajectory}"},
    "cispo": {"loss: {kind: clip}": "loss: {kind: cispo}"},
    "sapo": {
        "loss: {kind: clip}": "loss: {kind: sapo}\n  off_policy_threshold: 0.1\n  kl: {importance_weighted: true}"
    },
    "reinforce": {"loss: {kind: clip}": "loss: {kind: reinforce}", "num_epochs: 2": "num_epochs: 1"},
    "kl": {"group_size: 4": "group_size: 4\n  kl: {coef: 0.1, reference: {kind: sync, interval: 3}}"},
    "exact": {"group_size: 4": "group_size: 4\n  kl: {coef: 0.1, estimator: exact}"},
    "drop": {"group_size: 4": "group_size: 4\n  zero_variance: {kind: drop}\n  entropy_coef: 0.01"},
    "bootstrap": {"group_size: 4": "group_size: 4\n  truncation: bootstrap\n  max_length: 12"},
    "mask": {"group_size: 4": "group_size: 4\n  truncation: mask\n  max_length: 40"},
    "dr_grpo": {"reduction: dapo": "reduction: dr_grpo\n  max_length: 30"},
    "statistics": {"hidden_sizes: [5]}": "hidden_sizes: [5], normalization: {kind: running}}"},
    "bfloat16": {"group_size: 4": "group_size: 4\n  precision: bfloat16"},
}


def test_a_linear_baseline_needs_a_vector(write_config, tmp_path):
    pytest.importorskip("minatar")
    changes = {"baseline: alive": "baseline: linear", "group_size: 4": "group_size: 4\n  max_length: 30"}
    config = load_config(write_config("MinAtar/Breakout-v1", "grpo", **changes))
    with pytest.raises(ConfigError, match="linear reads an observed vector, and MinAtar/Breakout-v1 has none"):
        train(config, run_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match="linear reads an observed vector"):  # as `doctor` and a sweep's check find it
        Task(config).network()


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_trains(write_config, tmp_path, changes):
    config = load_config(write_config(algorithm="grpo", **changes))
    metrics = metrics_of(train(config, run_dir=tmp_path / "run"))
    assert all(np.isfinite(values).all() for values in metrics.values())
    assert set(metrics) >= {"train/loss_objective", "train/entropy", "train/reward", "train/frac_reward_zero_std"}
    assert metrics["train/completions/max_length"][-1] <= (config.grpo.max_length or 500)


def test_groups_without_a_difference_are_replaced_until_the_attempts_are_used_up(write_config, tmp_path):
    """With trajectories of one step all returns are equal: nothing can be learned, nothing breaks."""
    changes = {"group_size: 4": "group_size: 4\n  max_length: 1\n  zero_variance: {kind: resample, max_attempts: 3}"}
    changes["total_steps: 240"] = "total_steps: 48"
    changes["interval: 30,"] = "interval: 24,"
    config = load_config(write_config(algorithm="grpo", **changes))
    metrics = metrics_of(train(config, run_dir=tmp_path / "run"))
    assert metrics["train/frac_reward_zero_std"] == [1.0, 1.0]
    assert metrics["train/updates"] == [0, 0]
    assert metrics["train/episodes"] == [24, 48]  # 2 groups x 3 attempts x 4 trajectories, twice


def test_zero_variance_is_counted_and_a_full_set_of_groups_is_learned_from(write_config, tmp_path):
    changes = {"group_size: 4": "group_size: 4\n  zero_variance: {kind: resample}"}
    config = load_config(write_config(algorithm="grpo", **changes))
    metrics = metrics_of(train(config, run_dir=tmp_path / "run"))
    assert metrics["train/updates"][-1] > 0


@pytest.mark.parametrize("distribution", ["normal", "tanh_normal"])
def test_continuous_actions(write_config, tmp_path, distribution):
    changes = {"group_size: 4": f"group_size: 4\n  max_length: 9\n  distribution: {{kind: {distribution}}}"}
    config = load_config(write_config("Pendulum-v1", "grpo", **changes))
    metrics = metrics_of(train(config, run_dir=tmp_path / "run"))
    assert metrics["train/completions/clipped_ratio"][-1] == 1


def test_replayed_steps_count_as_steps_and_parts_of_episodes_do_not_count_as_episodes(write_config, tmp_path):
    """Each trajectory lasts as many steps as `max_length` allows: its own and the replayed ones are 9."""
    changes = {
        "group_size: 4": "group_size: 4\n  max_length: 9\n  starts: {kind: visited}",
        "num_groups: 2": "num_groups: 4",
    }
    config = load_config(write_config("Pendulum-v1", "grpo", **changes, **{"interval: 30,": "interval: 1,"}))
    metrics = metrics_of(train(config, run_dir=tmp_path / "run"))
    assert len(metrics["train/episodes"]) == 2
    assert metrics["train/episodes"] == [16, 24]  # 4 groups of 4 from resets; then 2 such groups and 2 visited ones
    assert metrics["train/length"] == [9, 9]
    assert metrics["train/replayed_fraction"][0] == 0
    lengths = metrics["train/completions/mean_length"]
    assert lengths[0] == 9
    assert 1 - metrics["train/replayed_fraction"][1] == pytest.approx(lengths[1] / 9)
    assert 0 < metrics["train/replayed_fraction"][1] < 0.5


def test_the_step_of_a_run_counts_replayed_steps(write_config, tmp_path):
    changes = {
        "group_size: 4": "group_size: 4\n  max_length: 9\n  starts: {kind: visited}",
        "num_groups: 2": "num_groups: 4",
    }
    config = load_config(write_config("Pendulum-v1", "grpo", **changes))
    run_dir = train(config, run_dir=tmp_path / "run")
    assert [row[0] for row in read_metrics(run_dir / "metrics.csv") if row[1] == "train/updates"] == [144, 288]
