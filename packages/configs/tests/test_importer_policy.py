"""Policies of the seed system; expected numbers follow from its documented semantics and its reference recipes."""

from pathlib import Path

import pytest
import yaml

from tesserl_configs import load_config, value_at
from tesserl_configs.importer import import_config

PPO = """\
nn: {vis: {cnn: {}}, training: {use_jit: true, use_ddqn: false}, decoder: {value: {freeze: true}}}
training: {algorithm: ppo, batch_size: 5, adam_epsilon: 1e-5, adam_beta1: 0.8, global_schedule_speed: 2, n_steps: 3,
           weight_decay_lr_ratio: 0.2, lr_schedule: [[0, 1e-3], [100_000, 1e-4]]}
performance: {gpu_collectors_count: 3}
exploration: {epsilon_schedule: [[0, 1]]}
memory: {prio_beta: 1}
ppo: {clip_coef: 0.15, clip_coef_vf: 0.25, update_epochs: 5, num_minibatches: 7, rollout_steps_per_update: 1000,
      normalize_advantages: false, max_grad_norm: 0.2, gamma: 0.9, ent_coef: 0.7, vf_coef: 0.4,
      ent_coef_schedule: [[0, 0.5], [30_000, 0.01], [120_000, 0.0]], gae_lambda: 0.9,
      gae_lambda_schedule: [[0, 0.95], [9, 0.97]], ppo_gamma_schedule: [[0, 0.99], [9, 0.997]]}
"""
GRPO = """\
nn: {vis: {cnn: {}}, decoder: {value: {freeze: true}}}
training: {algorithm: grpo, policy_rollout_gamma: 0.9}
grpo: {grpo_group_size: 128, grpo_normalize_group: mean_std, grpo_update_epochs: 10, grpo_num_minibatches: 4,
       grpo_ent_coef_schedule: [[0, 0.5], [10, 0.01], [20, 0.001]], grpo_max_grad_norm_schedule: [[0, 0.5], [9, 0.4]],
       grpo_ref_kl_coef: 0.0, grpo_ref_sync_every_updates: 50}
"""
DPO = """\
nn: {vis: {cnn: {}}}
training: {algorithm: dpo}
dpo: {dpo_beta_schedule: [[0, 0.5], [10_000_000, 0.1], [100_000_000, 0.02]], dpo_ref_sync_every_updates: 3,
      dpo_pair_buffer_max: 2, dpo_data_mode: online, dpo_vf_coef: 0.1, dpo_update_epochs: 2, dpo_num_minibatches: 4,
      dpo_max_grad_norm: 0.25}
"""


@pytest.fixture
def imported(write, monkeypatch):
    def read(text: str):
        result = import_config(write(text, "seed.yaml"), environment_id="Task-v0")
        return [str(note) for note in result.notes], load_config(write(result.text, "ours.yaml"))

    return read


def test_ppo_has_the_same_meaning(imported):
    _, config = imported(PPO)
    ppo = config.ppo
    assert (ppo.clip_epsilon, ppo.value_clip, ppo.value_coef, ppo.max_grad_norm) == (0.15, 0.25, 0.4, 0.2)
    assert (ppo.num_epochs, ppo.num_minibatches, ppo.normalize_advantage) == (5, 7, False)
    assert ppo.num_steps == 1000 // (3 * 7) * 7  # of each of three environments, so that seven minibatches divide it
    assert (ppo.discount, ppo.gae_lambda) == (0.997, 0.97)
    assert [value_at(ppo.entropy_coef, step) for step in (0, 60_000, 240_000)] == [0.5, 0.01, 0]
    assert (ppo.orthogonal_init, ppo.compile, ppo.value_loss, ppo.shared_body) == (False, False, "l2", True)
    assert config.nn.freeze == ("value",)


def test_a_policy_has_the_optimizer_of_means_without_weight_decay(imported):
    notes, config = imported(PPO)
    optimizer = config.optimizer
    assert (optimizer.kind, optimizer.eps, optimizer.betas, optimizer.weight_decay) == ("radam", 1e-5, (0.8, 0.999), 0)
    assert (optimizer.learning_rate.kind, optimizer.learning_rate.knots) == (
        "exponential",
        ((0, 1e-3), (200_000, 1e-4)),
    )
    assert "training.adam_epsilon -> optimizer.eps" in notes


def test_the_defaults_of_ppo_are_written_out(imported):
    _, config = imported("training: {algorithm: ppo}\n")
    ppo = config.ppo
    assert (ppo.num_steps, ppo.num_epochs, ppo.num_minibatches) == (2048 // 4, 4, 4)
    assert (ppo.discount, ppo.gae_lambda, ppo.clip_epsilon, ppo.value_clip, ppo.entropy_coef) == (
        0.99, 0.95, 0.2, None, 0.01
    )  # fmt: skip
    assert (config.nn.heads.hidden_sizes, config.nn.heads.shared_hidden_sizes) == ((), (1024, 1024))


def test_the_discount_of_all_policies_goes_before_that_of_ppo(imported):
    text = "training: {{algorithm: ppo, {}}}\nppo: {{gamma: 0.5, {}}}\n"
    scalar, schedule = "policy_rollout_gamma: 0.6", "policy_rollout_gamma_schedule: [[0, 0.1], [9, 0.7]]"
    legacy = "ppo_gamma_schedule: [[0, 0.8]]"
    assert imported(text.format("", ""))[1].ppo.discount == 0.5
    assert imported(text.format(scalar, ""))[1].ppo.discount == 0.6
    assert imported(text.format(scalar, legacy))[1].ppo.discount == 0.8
    assert imported(text.format(f"{scalar}, {schedule}", legacy))[1].ppo.discount == 0.7


@pytest.mark.parametrize("clip", ["0", "-1", "null"])
def test_a_clip_of_zero_is_none(imported, clip):
    assert imported(f"training: {{algorithm: ppo}}\nppo: {{clip_coef_vf: {clip}}}\n")[1].ppo.value_clip is None


def test_grpo_has_the_same_meaning_where_that_is_sound(imported):
    _, config = imported(GRPO)
    grpo = config.grpo
    assert (grpo.group_size, grpo.num_groups, grpo.num_epochs, grpo.num_minibatches) == (128, 1, 10, 1)
    assert (grpo.advantages.kind, grpo.advantages.baseline, grpo.advantages.scale) == ("trajectory", "mean", "group")
    assert (grpo.loss.kind, grpo.reduction, grpo.discount, grpo.kl) == ("clip", "dapo", 1, None)
    assert (value_at(grpo.entropy_coef, 0), value_at(grpo.entropy_coef, 20)) == (0.5, 0.001)
    assert grpo.max_grad_norm == 0.4
    assert config.nn.freeze == ()


def test_one_pass_needs_no_ratio(imported):
    grpo = imported("training: {algorithm: grpo}\ngrpo: {grpo_update_epochs: 1}\n")[1].grpo
    assert (grpo.loss.kind, grpo.advantages.scale) == ("reinforce", "none")


def test_a_penalty_has_a_reference_that_is_copied(imported):
    text = "training: {{algorithm: grpo}}\ngrpo: {{grpo_ref_sync_every_updates: 5, grpo_update_epochs: 3, {}}}\n"
    penalty = imported(text.format("grpo_ref_kl_coef: 0.2"))[1].grpo.kl
    assert (penalty.coef, penalty.estimator, penalty.reference.kind, penalty.reference.interval) == (
        0.2,
        "k3",
        "sync",
        15,
    )
    scheduled = imported(text.format("grpo_ref_kl_coef_schedule: [[0, 0.1], [10, 0]]"))[1].grpo.kl
    assert value_at(scheduled.coef, 5) == pytest.approx(0.05)
    assert imported(text.format("grpo_ref_kl_coef_schedule: [[0, 0], [10, 0]]"))[1].grpo.kl is None


def test_dpo_has_the_same_meaning_with_trajectories_of_one_start(imported):
    _, config = imported(DPO)
    assert [value_at(config.dpo.beta, step) for step in (0, 10_000_000, 100_000_000)] == [0.5, 0.1, 0.02]
    assert (config.dpo.loss.kind, config.dpo.reference.kind, config.dpo.reference.interval) == ("sigmoid", "sync", 6)
    assert (config.dpo.max_grad_norm, config.dpo.value, config.dpo.batch_size) == (0.25, None, 1)
    source = config.pairs.source
    assert (source.kind, source.num_epochs, source.num_groups, source.group_size) == ("online", 2, 1, 2)
    assert (source.segments.kind, source.same_start, config.pairs.holdout_fraction) == ("episode", True, 0)


@pytest.mark.parametrize("mode", ["offline", "both"])
def test_stored_pairs_are_left_to_be_made(imported, mode):
    text = f"training: {{algorithm: dpo}}\ndpo: {{dpo_data_mode: {mode}, dpo_offline_pairs_jsonl: x.jsonl}}\n"
    notes, config = imported(text)
    assert (config.pairs.source.kind, config.pairs.source.path) == (mode, str(Path.cwd() / "PAIRS"))
    assert "dpo.dpo_offline_pairs_jsonl: its pairs are pickled; make pairs with `tesserl pairs`" in notes
    assert "to mend: pairs.source.path: write pairs with `tesserl pairs make`, and their directory there" in notes


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (PPO, "nn.training.use_jit: there it compiles nothing that learns; ppo.compile does"),
        (PPO, "nn.training.use_ddqn: read by iqn alone, while the file trains ppo"),
        (PPO, "training.batch_size: read by iqn alone, while the file trains ppo"),
        (PPO, "training.n_steps: read by iqn alone, while the file trains ppo"),
        (PPO, "training.weight_decay_lr_ratio: read by iqn alone, while the file trains ppo"),
        (PPO, "exploration.epsilon_schedule: read by iqn alone, while the file trains ppo"),
        (PPO, "memory.prio_beta: read by iqn alone, while the file trains ppo"),
        (PPO, "ppo.ent_coef: its schedule takes precedence"),
        (PPO, "ppo.gae_lambda: its schedule takes precedence"),
        (PPO, "ppo.gamma: another discount of the file takes precedence"),
        (PPO, "ppo.ppo_gamma_schedule -> ppo.discount (its last value, 0.997; a number here)"),
        (PPO, "ppo.rollout_steps_per_update -> ppo.num_steps (/ 3 environments, and a multiple of the minibatches)"),
        (PPO, "training.global_schedule_speed -> knots of the schedules (multiplied in)"),
        (GRPO, "grpo.grpo_num_minibatches: not read by the seed system either"),
        (GRPO, "grpo.grpo_ref_sync_every_updates: grpo_ref_kl_coef is 0: there is no reference"),
        (GRPO, "grpo.grpo_ref_kl_coef -> grpo.kl.coef"),
        (GRPO, "training.policy_rollout_gamma: a discount of ppo; for dpo and grpo it shapes the rewards of one game"),
        (GRPO, "nn.decoder.value.freeze: grpo trains no value"),
        (
            PPO,
            "training.lr_schedule -> total_steps (where its schedule ends; the seed system runs until it is stopped)",
        ),
        (DPO, "dpo.dpo_vf_coef: there the value learns its own old outputs; dpo.value learns returns"),
        (DPO, "dpo.dpo_pair_buffer_max: pairs are made of the trajectories of one start: pairs.source.group_size"),
        (DPO, "dpo.dpo_num_minibatches: not read by the seed system either"),
    ],
)
def test_what_became_of_a_key_is_said(imported, text, line):
    assert line in imported(text)[0]


@pytest.mark.parametrize("text", [PPO, GRPO, DPO], ids=["ppo", "grpo", "dpo"])
def test_every_key_of_a_file_is_named_and_known(imported, text):
    def leaves(data, path=""):
        for key, value in data.items():
            here = f"{path}.{key}".lstrip(".")
            yield from leaves(value, here) if isinstance(value, dict) and value else [here]

    notes, _ = imported(text)
    named = {note.split(":")[0].split(" ->")[0] for note in notes}
    assert set(leaves(yaml.safe_load(text))) - {"nn.vis.cnn"} <= named
    assert not [note for note in notes if "not a key of the seed system" in note]
    assert [note for note in notes if note.startswith("to mend")] == [
        "to mend: environment.wrappers: images have one grey channel there: write {kind: grayscale} first if those of "
        "your task have colours"
    ]
