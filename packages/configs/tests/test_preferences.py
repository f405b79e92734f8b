"""``pairs:``, ``dpo:`` and ``cpl:`` and what they refuse."""

from pathlib import Path

import pytest
import yaml

from tesserl_configs import dump_config, load_config
from tesserl_configs.introspection import blocks_in, kinds_of
from tesserl_configs.preference_losses import PairLoss

DPO = """\
total_steps: 10_000
environment: {id: CartPole-v1}
nn: {vector: {kind: mlp}}
algorithm: dpo
pairs: {source: {kind: offline, path: data/cartpole}}
"""
CPL = DPO.replace("algorithm: dpo", "algorithm: cpl")
ONLINE = "pairs.source={kind: online}"
LOSSES = [kind for block in blocks_in(PairLoss) for kind in kinds_of(block)]

BROKEN = {
    "workers without anything to collect": (
        ["collectors.kind=process"],
        "--set collectors.kind: collectors.kind: process plays in the environments, and pairs.source of kind offline "
        "does not; choose local",
    ),
    "visited states": (
        ["pairs.source={kind: online, starts: {kind: visited}}"],
        "--set pairs.source: pairs.source.starts: expected one of the kinds seed, state, level, got visited",
    ),
    "starts_can_be_set": (
        [ONLINE, "environment.vectorization=vector_entry_point"],
        "--set environment.vectorization: environment.vectorization: pairs.source.starts gives each environment its "
        "start, those of vector_entry_point are reset together; choose sync",
    ),
    "lengths_have_a_range": (
        ["pairs.source={kind: online, segments: {kind: variable, min_length: 65}}"],
        "--set pairs.source: pairs.source.segments.min_length: expected at most max_length = 64, got 65",
    ),
    "pretraining_has_data": (
        [ONLINE, "dpo.pretraining={}"],
        "--set dpo.pretraining: dpo.pretraining: is on stored pairs, and pairs.source has kind online; set it to null "
        "or choose offline or both",
    ),
    "reference of simpo": (
        ["dpo.loss={kind: simpo}"],
        "--set dpo.loss: dpo.reference: simpo compares with no reference, got frozen; set it to {kind: none}",
    ),
    "reference of orpo": (
        ["dpo.loss={kind: orpo}", "dpo.reference={kind: sync}"],
        "--set dpo.reference: dpo.reference: orpo compares with no reference, got sync; set it to {kind: none}",
    ),
    "reference of kto": (
        ["dpo.loss={kind: kto}", "dpo.reference={kind: none}"],
        "--set dpo.reference: dpo.reference: kto measures the divergence from a reference, got none; choose frozen",
    ),
    "averages_stay_averages": (
        ["dpo.loss={kind: sigmoid_norm}", "dpo.length_normalize=false"],
        "--set dpo.length_normalize: dpo.length_normalize: sigmoid_norm is made of averages, got false; set it to null",
    ),
    "cloning beside kto": (
        ["dpo.loss={kind: kto}", "dpo.nll_coef=0.1"],
        "--set dpo.nll_coef: dpo.nll_coef: kto has no such term; set it to null",
    ),
    "tails of averages": (
        ["dpo.loss={kind: ipo}", "dpo.ld_alpha=0.5"],
        "--set dpo.ld_alpha: dpo.ld_alpha: is for sums over pairs, got ipo of averages; set it to 1",
    ),
    "tails of single segments": (
        ["dpo.loss={kind: bco}", "dpo.ld_alpha=0.5"],
        "--set dpo.ld_alpha: dpo.ld_alpha: is for sums over pairs, got bco of single segments; set it to 1",
    ),
    "weights of single segments": (
        ["dpo.loss={kind: kto}", "dpo.use_weighting=true"],
        "--set dpo.use_weighting: dpo.use_weighting: weighs the losses of pairs, got kto of single segments; set it to "
        "false",
    ),
    "weights of a sorted batch": (
        ["dpo.loss={kind: aot}", "dpo.use_weighting=true"],
        "--set dpo.use_weighting: dpo.use_weighting: weighs the losses of pairs, got aot of a sorted batch; set it to "
        "false",
    ),
    "weights of squashed actions": (
        ["dpo.distribution={kind: tanh_normal}", "dpo.use_weighting=true"],
        "--set dpo.use_weighting: dpo.use_weighting: needs a density with a closed mean, got tanh_normal; choose kind "
        "normal",
    ),
    "value beside kto": (
        ["dpo.loss={kind: kto}", "dpo.value={}"],
        "--set dpo.value: dpo.value: kto has no such term; set it to null",
    ),
    "sorted_batches_have_no_ties": (
        ["pairs.source={kind: online, ties: keep}", "dpo.loss={kind: aot}"],
        "--set pairs.source: pairs.source.ties: aot sorts its batch and has no place for ties; set it to drop",
    ),
    "rewards of unequal units": (
        ["environment.wrappers=[{kind: normalize_reward}]"],
        "--set environment.wrappers: environment.wrappers.0: normalize_reward has statistics of its own in each "
        "environment, and dpo compares trajectories of several; use reward_scale",
    ),
    "pairs of one start": (
        ["pairs.source={kind: online, num_groups: 3, group_size: 4, pairs_per_iteration: 19}"],
        "--set pairs.source: pairs.source.pairs_per_iteration: expected at most 18, the pairs of 3 starts with 4 "
        "episodes each, of one start, got 19; null makes all",
    ),
    "pairs of any start": (
        ["pairs.source={kind: online, num_groups: 3, group_size: 4, pairs_per_iteration: 67, same_start: false}"],
        "--set pairs.source: pairs.source.pairs_per_iteration: expected at most 66, the pairs of 3 starts with 4 "
        "episodes each, got 67; null makes all",
    ),
    "ranges_have_a_width": (
        ["pairs.source={kind: online, teacher: {bounds: [1, 1]}}"],
        "--set pairs.source: pairs.source.teacher.bounds: expected a low end and a higher one, got [1.0, 1.0]",
    ),
    "label smoothing of another loss": (
        ["dpo.loss={kind: hinge, label_smoothing: 0.1}"],
        "--set dpo.loss: dpo.loss.label_smoothing: unknown key for kind hinge; it belongs to kind sigmoid, robust, "
        "exo_pair, aot, aot_unpaired",
    ),
    "divergence of another loss": (
        ["dpo.loss={kind: nca_pair, f_divergence: {kind: forward_kl}}"],
        "--set dpo.loss: dpo.loss.f_divergence: unknown key for kind nca_pair; it belongs to kind sigmoid, robust, "
        "hinge, ipo, sigmoid_norm, exo_pair, discopop",
    ),
    "buffer of stored pairs": (
        ["pairs.source={kind: offline, path: x, buffer_size: 5}"],
        "--set pairs.source: pairs.source.buffer_size: unknown key for kind offline; it belongs to kind online, both",
    ),
    "stored pairs without a path": (
        ["pairs.source={kind: both}"],
        "--set pairs.source: pairs.source.path: missing; directory of stored pairs, as written by `tesserl pairs` "
        "and labelled by a teacher or a person",
    ),
    "value of cpl": (
        ["cpl.alpha=0.2"],
        "--set cpl.alpha: cpl: belongs to algorithm cpl, got algorithm dpo; remove the block",
    ),
    "memory": (
        ["nn.memory={kind: lstm}"],
        "--set nn.memory: nn.memory.kind: dpo learns from steps without the state before them, got lstm; choose none, "
        "stack frames, or use ppo",
    ),
    "falling beta": (
        ["dpo.beta={kind: linear, knots: [[0, 0.1], [9, 0]]}"],
        "--set dpo.beta: dpo.beta: the values of the knots must lie in [1e-12, 1e9], got [0.1, 0.0]",
    ),
}

OUT_OF_RANGE = [
    "pairs.holdout_fraction=1",
    "pairs.source={kind: online, num_groups: 0}",
    "pairs.source={kind: online, group_size: 1}",
    "pairs.source={kind: online, pairs_per_iteration: 0}",
    "pairs.source={kind: online, buffer_size: 0}",
    "pairs.source={kind: online, num_epochs: 0}",
    "pairs.source={kind: online, score_discount: 1.1}",
    "pairs.source={kind: online, min_margin: -1}",
    "pairs.source={kind: online, segments: {kind: fixed, length: 0}}",
    "pairs.source={kind: online, teacher: {beta: 0}}",
    "pairs.source={kind: online, teacher: {discount: 2}}",
    "pairs.source={kind: online, teacher: {equal: -1}}",
    "pairs.source={kind: online, teacher: {mistake: 1.1}}",
    "pairs.source={kind: both, path: x, offline_fraction: 1}",
    "dpo.beta=0",
    "dpo.batch_size=0",
    "dpo.discount=1.1",
    "dpo.nll_coef=-1",
    "dpo.entropy_coef=-1",
    "dpo.value={coef: 0}",
    "dpo.value={discount: 1.1}",
    "dpo.max_grad_norm=0",
    "dpo.pretraining={num_updates: 0}",
    "dpo.loss={kind: sigmoid, label_smoothing: 0.6}",
    "dpo.loss={kind: robust, label_smoothing: 0.5}",
    "dpo.loss={kind: exo_pair, label_smoothing: 0}",
    "dpo.loss={kind: discopop, tau: 0}",
    "dpo.loss={kind: simpo, gamma: -1}",
    "dpo.loss={kind: kto, desirable_weight: -1}",
]


@pytest.mark.parametrize(("overrides", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_rule_says_where_and_what(errors_in, overrides, message):
    assert errors_in(DPO, *overrides) == [message]


@pytest.mark.parametrize("override", OUT_OF_RANGE)
def test_a_number_out_of_range_is_refused_with_its_bound(errors_in, override):
    [message] = errors_in(DPO, override)
    assert ": expected a value " in message


@pytest.mark.parametrize("override", ["cpl.alpha=0", "cpl.bias=0", "cpl.bias=1.1", "cpl.discount=-1", "cpl.bc_coef=-1"])
def test_a_number_of_cpl_out_of_range_is_refused_with_its_bound(errors_in, override):
    [message] = errors_in(CPL, override)
    assert ": expected a value " in message


@pytest.mark.parametrize("kind", LOSSES)
def test_every_loss_loads_and_survives_the_round_trip(write, kind):
    reference = "none" if kind in ("simpo", "orpo", "sft") else "frozen"
    config = load_config(write(DPO), [f"dpo.loss={{kind: {kind}}}", f"dpo.reference={{kind: {reference}}}"])
    assert load_config(write(dump_config(config), "again.yaml")) == config
    assert config.dpo.loss.kind == kind


def test_the_losses_are_those_of_the_package_of_preferences_and_kto():
    assert set(LOSSES) == {
        "sigmoid", "robust", "hinge", "ipo", "sigmoid_norm", "exo_pair", "nca_pair", "bco_pair", "sppo_hard",
        "apo_zero", "apo_down", "aot", "aot_unpaired", "discopop", "simpo", "orpo", "sft", "kto", "apo_zero_unpaired",
        "bco",
    }  # fmt: skip


@pytest.mark.parametrize(
    "overrides",
    [
        ["pairs.source={kind: both, path: x, segments: {kind: variable, min_length: 64}}", "dpo.pretraining={}"],
        [ONLINE, "environment.vectorization=async"],
        ["environment.vectorization=vector_entry_point"],  # nothing is collected
        ["dpo.loss={kind: ipo}", "dpo.length_normalize=false"],
        ["dpo.loss={kind: simpo}", "dpo.reference={kind: none}", "dpo.length_normalize=true"],
        ["dpo.loss={kind: kto, desirable_weight: 1.3}", "dpo.entropy_coef=0.1"],
        ["dpo.loss={kind: aot}"],  # what is stored is not known here
        ["pairs.source={kind: online, num_groups: 3, group_size: 4, pairs_per_iteration: 18}"],
        ["pairs.source={kind: online, pairs_per_iteration: 500, segments: {kind: fixed}}"],
        ["pairs.source={kind: online, ties: keep, teacher: {skip: 0.1, equal: 0.1, bounds: [-200, 200]}}"],
        ["dpo.loss={kind: hinge, f_divergence: {kind: alpha_divergence, alpha: 0.3}}"],
        ["dpo.reference={kind: none}", "dpo.nll_coef=1", "dpo.value={coef: 0.5}", "nn.heads.value={kind: mlp}"],
        ["dpo.reference={kind: moving_average}", "dpo.beta={kind: linear, knots: [[0, 0.5], [10_000, 0.02]]}"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_what_just_keeps_the_rules_loads(write, overrides):
    load_config(write(DPO), overrides)


def test_the_defaults_of_dpo(write):
    config = load_config(write(DPO))
    assert (config.optimizer.learning_rate, config.optimizer.eps, config.nn.heads.hidden_sizes) == (1e-4, 1e-8, ())
    block = config.dpo
    assert (block.loss.kind, block.beta, block.reference.kind) == ("sigmoid", 0.1, "frozen")
    assert (block.loss.label_smoothing, block.loss.f_divergence.kind) == (0, "reverse_kl")
    assert (block.length_normalize, block.discount, block.entropy_coef) == (None, 1, 0)
    assert (block.nll_coef, block.value, block.pretraining) == (None, None, None)


def test_the_defaults_of_cpl_are_those_of_its_code(write):
    block = load_config(write(CPL), ["cpl.pretraining={data: chosen}"]).cpl
    assert (block.alpha, block.bias, block.discount, block.comparison) == (0.1, 0.5, 1, "pairs")
    assert (block.bc_coef, block.length_normalize) == (0, False)
    assert (block.pretraining.num_updates, block.pretraining.data) == (2_000, "chosen")


def test_fresh_pairs_share_a_start_and_are_judged_by_their_score(write):
    source = load_config(write(DPO), [ONLINE]).pairs.source
    assert (source.starts.kind, source.same_start, source.segments.kind) == ("seed", True, "episode")
    assert (source.pairs_per_iteration, source.ties, source.teacher) == (None, "drop", None)


def test_a_teacher_without_options_makes_no_mistakes(write):
    teacher = load_config(write(DPO), [ONLINE, "pairs.source.teacher={}"]).pairs.source.teacher
    assert (teacher.beta, teacher.discount, teacher.skip, teacher.equal, teacher.mistake) == (None, 1, None, 0, 0)


def test_pairs_are_printed_for_both_algorithms_and_for_no_other(write):
    for text in (DPO, CPL):
        data = yaml.safe_load(dump_config(load_config(write(text))))
        assert data["pairs"]["source"] == {"kind": "offline", "path": str(Path.cwd() / "data/cartpole")}
        assert len({"iqn", "ppo", "grpo", "dpo", "cpl", "replay"} & set(data)) == 1


def test_pairs_are_for_preferences(errors_in):
    [message] = errors_in(DPO.replace("algorithm: dpo", "algorithm: grpo"))
    assert message == "x.yaml:5: pairs: belongs to algorithm dpo or cpl, got algorithm grpo; remove the block"
