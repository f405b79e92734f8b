"""``grpo:`` and what it refuses."""

import pytest

from tesserl_configs import dump_config, load_config, nn_rules, value_at
from tesserl_configs.nn import NNConfig

GRPO = """\
total_steps: 10_000
environment: {id: CartPole-v1}
nn: {vector: {kind: mlp}}
algorithm: grpo
grpo: {group_size: 3, num_groups: 5}
"""

BROKEN = {
    "resampled groups with a delay": (
        ["grpo.zero_variance={kind: resample}", "collectors.kind=process"],
        "--set collectors.kind: collectors.delay: grpo.zero_variance of kind resample needs 0, got 1; the next groups "
        "are begun before these are judged",
    ),
    "free workers without a replay": (
        ["collectors={kind: process, mode: async}"],
        "--set collectors: collectors.mode: async is for algorithms with a replay, got algorithm grpo; choose fixed",
    ),
    "free actors without a replay": (
        ["collectors={kind: ray, mode: async}"],
        "--set collectors: collectors.mode: async is for algorithms with a replay, got algorithm grpo; choose sync",
    ),
    "starts_can_be_set": (
        ["environment.vectorization=vector_entry_point"],
        "--set environment.vectorization: environment.vectorization: grpo.starts gives each environment its start, "
        "those of vector_entry_point are reset together; choose sync",
    ),
    "states of atari": (
        [
            "environment={id: ALE/Pong-v5, vectorization: atari}",
            "nn={vision: {kind: cnn}}",
            "grpo.starts={kind: state}",
        ],
        "--set grpo.starts: grpo.starts.kind: vectorization atari starts games by seeds alone, got state; choose seed, "
        "or sync there",
    ),
    "visited states of atari": (
        [
            "environment={id: ALE/Pong-v5, vectorization: atari}",
            "nn={vision: {kind: cnn}}",
            "grpo.starts={kind: visited}",
        ],
        "--set grpo.starts: grpo.starts.kind: vectorization atari starts games by seeds alone, got visited; choose "
        "seed, or sync there",
    ),
    "visited_states_are_known": (
        ["grpo.starts={kind: visited}", "collectors={kind: ray}"],
        "--set grpo.starts: grpo.starts.kind: visited branches from all trajectories, and worker processes know only "
        "their own: expected collectors of kind local, got ray; choose it, or starts of kind seed",
    ),
    "number of visited states": (
        ["grpo.starts={kind: visited, num_starts: 3}"],
        "--set grpo.starts: grpo.starts.num_starts: unknown key for kind visited; it belongs to kind seed, state",
    ),
    "minibatches_hold_trajectories": (
        ["grpo.num_minibatches=16"],
        "--set grpo.num_minibatches: grpo.num_minibatches: expected at most grpo.num_groups * grpo.group_size = 15 "
        "trajectories, got 16",
    ),
    "plain_gradients_are_taken_once": (
        ["grpo.loss={kind: reinforce}", "grpo.num_epochs=2"],
        "--set grpo.num_epochs: grpo.num_epochs: reinforce is right for one pass over the data, got 2; set it to 1 or "
        "choose grpo.loss of kind clip",
    ),
    "cap below the clip": (
        ["grpo.loss={kind: clip, delta: 1.2}"],
        "--set grpo.loss: grpo.loss.delta: expected more than 1 + grpo.loss.clip_epsilon = 1.2, got 1.2; it is a ratio",
    ),
    "cap below a scheduled clip": (
        ["grpo.loss={kind: clip, delta: 1.3, clip_epsilon_high: {kind: linear, knots: [[0, 0.5], [9, 0.1]]}}"],
        "--set grpo.loss: grpo.loss.delta: expected more than 1 + grpo.loss.clip_epsilon_high = 1.5, got 1.3; it is a "
        "ratio",
    ),
    "lengths_have_a_bound": (
        ["grpo.reduction=dr_grpo"],
        "--set grpo.reduction: grpo.reduction: dr_grpo divides by the longest length; set grpo.max_length",
    ),
    "rewards of unequal units": (
        ["environment.wrappers=[{kind: normalize_reward}]"],
        "--set environment.wrappers: environment.wrappers.0: normalize_reward has statistics of its own in each "
        "environment, and grpo compares trajectories of several; use reward_scale",
    ),
    "penalties_have_a_gradient": (
        ["grpo.kl={estimator: k1}"],
        "--set grpo.kl: grpo.kl.estimator: the expected gradient of k1 is 0, so it would only add noise; choose k2, k3 "
        "or exact",
    ),
    "memory": (
        ["nn.memory={kind: gru}"],
        "--set nn.memory: nn.memory.kind: grpo learns from steps without the state before them, got gru; choose none, "
        "stack frames, or use ppo",
    ),
    "value": (
        ["nn.heads.value={kind: mlp}"],
        "--set nn.heads.value: nn.heads.value: grpo has no value; remove the key",
    ),
    "frozen value": (
        ["nn.freeze=[value]"],
        "--set nn.freeze: nn.freeze.0: this network has no part value; parts: vector, heads, policy",
    ),
    "clip of another loss": (
        ["grpo.loss={kind: cispo, clip_epsilon: 0.1}"],
        "--set grpo.loss: grpo.loss.clip_epsilon: unknown key for kind cispo; it belongs to kind clip",
    ),
    "baseline of another kind": (
        ["grpo.advantages={kind: trajectory, baseline: alive}"],
        '--set grpo.advantages: grpo.advantages.baseline: expected one of mean, leave_one_out, got "alive"',
    ),
    "levels": (
        ["grpo.starts={kind: level}"],
        "--set grpo.starts: grpo.starts.num_levels: missing; number of levels 0, 1, ..., used in turn, >= 1",
    ),
    "rate of a copy": (
        ["grpo.kl={reference: {kind: sync, rate: 0.1}}"],
        "--set grpo.kl: grpo.kl.reference.rate: unknown key for kind sync; it belongs to kind moving_average",
    ),
    "no reference": (
        ["grpo.kl={reference: {kind: none}}"],
        "--set grpo.kl: grpo.kl.reference: expected one of the kinds frozen, sync, moving_average, got none",
    ),
}

OUT_OF_RANGE = [
    "grpo.group_size=1",
    "grpo.num_groups=0",
    "grpo.max_length=0",
    "grpo.discount=1.1",
    "grpo.num_epochs=0",
    "grpo.num_minibatches=0",
    "grpo.max_grad_norm=0",
    "grpo.entropy_coef=-1",
    "grpo.top_entropy_fraction=0",
    "grpo.loss={kind: clip, clip_epsilon: 1}",
    "grpo.loss={kind: clip, clip_epsilon_high: 0}",
    "grpo.loss={kind: clip, delta: 1}",
    "grpo.loss={kind: cispo, max_ratio: 0}",
    "grpo.zero_variance={kind: resample, max_attempts: 0}",
    "grpo.starts={kind: seed, num_starts: 0}",
    "grpo.starts={kind: visited, fraction: 0}",
    "grpo.starts={kind: visited, fraction: 1}",
    "grpo.kl={coef: -1}",
    "grpo.kl={reference: {kind: sync, interval: 0}}",
    "grpo.kl={reference: {kind: moving_average, rate: 0}}",
]


@pytest.fixture
def grpo(write):
    return lambda *overrides: load_config(write(GRPO), overrides)


@pytest.mark.parametrize(("overrides", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_rule_says_where_and_what(errors_in, overrides, message):
    assert errors_in(GRPO, *overrides) == [message]


@pytest.mark.parametrize("override", OUT_OF_RANGE)
def test_a_number_out_of_range_is_refused_with_its_bound(errors_in, override):
    [message] = errors_in(GRPO, override)
    assert ": expected a value " in message


@pytest.mark.parametrize(
    "overrides",
    [
        ["grpo.num_minibatches=15"],
        ["grpo.loss={kind: reinforce}"],
        ["grpo.loss={kind: reinforce}", "grpo.num_minibatches=3"],
        ["grpo.loss={kind: clip, delta: 1.21}", "grpo.num_epochs=4"],
        ["grpo.loss={kind: cispo, max_ratio: 3, importance_level: trajectory}"],
        ["grpo.reduction=dr_grpo", "grpo.max_length=500", "grpo.truncation=bootstrap"],
        ["grpo.kl={coef: 0.1, estimator: exact, reference: {kind: moving_average, rate: 0.01, interval: 1}}"],
        ["grpo.kl={reference: {kind: sync, interval: 50}}"],
        ["grpo.advantages={kind: to_go, baseline: leave_one_out, scale: batch}"],
        ["grpo.starts={kind: level, num_levels: 5}", "grpo.zero_variance={kind: resample}"],
        ["grpo.starts={kind: state, num_starts: 7}", "grpo.zero_variance={kind: drop}"],
        ["grpo.starts={kind: visited, fraction: 0.3}", "grpo.zero_variance={kind: resample}"],
        ["grpo.starts={kind: visited}", "environment.vectorization=async"],
        ["environment.vectorization=async"],
        ["environment={id: ALE/Pong-v5, vectorization: atari}", "nn={vision: {kind: cnn}}"],
    ],
    ids=lambda overrides: overrides[-1],
)
def test_what_just_keeps_the_rules_loads_and_survives_the_round_trip(grpo, write, overrides):
    config = grpo(*overrides)
    assert load_config(write(dump_config(config), "again.yaml")) == config


def test_the_defaults(grpo):
    config = grpo()
    assert (config.optimizer.learning_rate, config.optimizer.eps, config.nn.heads.hidden_sizes) == (2.5e-4, 1e-5, ())
    block = config.grpo
    assert (block.starts.kind, block.starts.num_starts, block.max_length, block.truncation) == (
        "seed",
        None,
        None,
        "keep",
    )
    assert (block.advantages.kind, block.advantages.baseline, block.advantages.scale) == ("trajectory", "mean", "group")
    assert (block.loss.kind, block.loss.clip_epsilon, block.loss.delta, block.reduction) == ("clip", 0.2, None, "dapo")
    assert (block.kl, block.num_epochs, block.num_minibatches, block.zero_variance.kind) == (None, 1, 1, "keep")
    penalty = grpo("grpo.kl={}").grpo.kl
    assert (penalty.coef, penalty.estimator, penalty.reference.kind) == (0.04, "k3", "frozen")


def test_an_entropy_bonus_and_a_penalty_may_be_scheduled(grpo):
    block = grpo(
        "grpo.entropy_coef={kind: linear, knots: [[0, 0.1], [100, 0]]}",
        "grpo.kl.coef={kind: step, knots: [[0, 1], [50, 0]]}",
    ).grpo
    assert (value_at(block.entropy_coef, 50), value_at(block.kl.coef, 50)) == (0.05, 0)


def test_a_policy_without_a_critic_has_no_value(grpo):
    network = NNConfig.model_validate({"vector": {"kind": "mlp"}})
    assert nn_rules.parts_of(network, "grpo") == ["vector", "heads", "policy"]
