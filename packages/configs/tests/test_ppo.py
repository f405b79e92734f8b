"""``ppo:``, ``nn.memory:`` and what they refuse."""

import pytest

from tesserl_configs import load_config, nn_rules, value_at
from tesserl_configs.nn import NNConfig

PPO = """\
total_steps: 10_000
environment: {id: CartPole-v1, num_envs: 6}
nn: {vector: {kind: mlp}}
algorithm: ppo
ppo: {num_steps: 10, num_minibatches: 4}
"""
LSTM = "nn.memory={kind: lstm}"

BROKEN = {
    "minibatches": (
        ["ppo.num_minibatches=7"],
        "--set ppo.num_minibatches: ppo.num_minibatches: expected a divisor of environment.num_envs * ppo.num_steps = "
        "60, got 7",
    ),
    "minibatches of sequences": (
        [LSTM],
        "x.yaml:5: ppo.num_minibatches: expected a divisor of environment.num_envs = 6, as nn.memory needs whole "
        "sequences, got 4",
    ),
    "deviation of one step": (
        ["ppo.num_minibatches=60"],
        "x.yaml:5: ppo.normalize_advantage: divides by the deviation within a minibatch, which holds one step here; "
        "set it to false or take fewer minibatches",
    ),
    "a_rollout_fits_into_the_run": (
        ["total_steps=59"],
        "--set total_steps: total_steps: expected at least environment.num_envs * ppo.num_steps = 60, got 59",
    ),
    "dual clip of torchrl": (
        ["ppo.loss=torchrl", "ppo.dual_clip=3"],
        "--set ppo.dual_clip: ppo.dual_clip: torchrl's ClipPPOLoss has none; remove it or set ppo.loss: tesserl",
    ),
    "asymmetric clip of torchrl": (
        ["ppo.loss=torchrl", "ppo.clip_epsilon_high=0.28"],
        "--set ppo.clip_epsilon_high: ppo.clip_epsilon_high: torchrl's ClipPPOLoss is given clip_epsilon alone; "
        "remove it or set ppo.loss: tesserl",
    ),
    "value clip of torchrl": (
        ["ppo.loss=torchrl", "ppo.value_clip=0.2"],
        "--set ppo.value_clip: ppo.value_clip: torchrl's ClipPPOLoss is given clip_epsilon alone; remove it or set "
        "ppo.loss: tesserl",
    ),
    "memory of two bodies": (
        [LSTM, "ppo.num_minibatches=3", "ppo.shared_body=false"],
        "--set ppo.shared_body: ppo.shared_body: one nn.memory, here lstm, feeds actor and critic; set it to true or "
        "choose nn.memory of kind none",
    ),
    "compiled memory": (
        [LSTM, "ppo.num_minibatches=3", "ppo.compile=true"],
        "--set ppo.compile: ppo.compile: torch.compile does not trace recurrent layers, and nn.memory has kind lstm; "
        "set it to false",
    ),
    "shared layers of two bodies": (
        ["nn.heads.shared_hidden_sizes=[8]", "ppo.shared_body=false"],
        "--set nn.heads.shared_hidden_sizes: nn.heads.shared_hidden_sizes: policy and value share hidden layers behind "
        "one body, and ppo.shared_body is false; set it to true or write nn.heads.hidden_sizes",
    ),
    "learning rate factor of no memory": (
        ["nn.learning_rate_factors.memory=2"],
        "--set nn.learning_rate_factors.memory: nn.learning_rate_factors.memory: this network has no part memory; "
        "parts: vector, heads, policy, value",
    ),
    "noise": (
        ["nn.heads.noisy=true"],
        "--set nn.heads.noisy: nn.heads.noisy: belongs to iqn, got algorithm ppo; remove the key",
    ),
    "norm of linear heads": (
        ["nn.heads.layer_norm=true"],
        "--set nn.heads.layer_norm: nn.heads.layer_norm: there is no hidden layer; set it to false",
    ),
    "kind of another distribution": (
        ["ppo.distribution={kind: categorical}"],
        '--set ppo.distribution: ppo.distribution.kind: expected one of normal, tanh_normal, got "categorical"',
    ),
    "clip of no scaling": (
        ["ppo.reward_scaling={kind: none, clip: 5}"],
        "--set ppo.reward_scaling: ppo.reward_scaling.clip: unknown key for kind none; it belongs to kind running",
    ),
    "width of no memory": (
        ["nn.memory={kind: none, hidden_size: 5}"],
        "--set nn.memory: nn.memory.hidden_size: unknown key for kind none; it belongs to kind gru, lstm",
    ),
    "schedule of a clip": (
        ["ppo.clip_epsilon={kind: linear, knots: [[0, 1.0], [9, 0]]}"],
        "--set ppo.clip_epsilon: ppo.clip_epsilon: the values of the knots must lie in [1e-12, 1) or be 0, not all of "
        "them, got [1.0, 0.0]",
    ),
    "schedule of the entropy": (
        ["ppo.entropy_coef={kind: linear, knots: [[0, 0.1], [9, -0.1]]}"],
        "--set ppo.entropy_coef: ppo.entropy_coef: the values of the knots must lie in [0, 1e9], got [0.1, -0.1]",
    ),
}

OUT_OF_RANGE = [
    "ppo.num_steps=0",
    "ppo.num_epochs=0",
    "ppo.num_minibatches=0",
    "ppo.discount=1.1",
    "ppo.gae_lambda=-0.1",
    "ppo.clip_epsilon=0",
    "ppo.clip_epsilon=1",
    "ppo.clip_epsilon_high=0",
    "ppo.dual_clip=1",
    "ppo.value_clip=0",
    "ppo.value_coef=-1",
    "ppo.entropy_coef=-0.1",
    "ppo.max_grad_norm=0",
    "ppo.target_kl=0",
    "ppo.distribution={kind: normal, initial_scale: 0}",
    "ppo.reward_scaling={kind: running, clip: 0}",
    "nn.memory={kind: gru, hidden_size: 0}",
    "nn.memory={kind: lstm, num_layers: 0}",
]


@pytest.fixture
def ppo(write):
    return lambda *overrides: load_config(write(PPO), overrides)


@pytest.mark.parametrize(("overrides", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_rule_says_where_and_what(errors_in, overrides, message):
    assert errors_in(PPO, *overrides) == [message]


@pytest.mark.parametrize("override", OUT_OF_RANGE)
def test_a_number_out_of_range_is_refused_with_its_bound(errors_in, override):
    [message] = errors_in(PPO, override)
    assert ": expected a value " in message


@pytest.mark.parametrize(
    "overrides",
    [
        ["ppo.num_minibatches=5"],  # divides 60 steps, not 6 environments
        [LSTM, "ppo.num_minibatches=6"],
        ["nn.heads.shared_hidden_sizes=[8]"],
        ["ppo.num_minibatches=60", "ppo.normalize_advantage=false"],
        ["total_steps=60"],
        ["ppo.loss=torchrl", "ppo.value_loss=smooth_l1"],
        ["ppo.dual_clip=3"],
        ["ppo.shared_body=false", "ppo.compile=true"],
        ["ppo.max_grad_norm=null", "ppo.target_kl=0.015", "ppo.reward_scaling={kind: running, clip: null}"],
        ["ppo.distribution={kind: tanh_normal, initial_scale: 0.5, state_dependent_scale: true}"],
        [LSTM, "ppo.num_minibatches=2", "nn.freeze=[vector]", "nn.learning_rate_factors.memory=0.5"],
        ["nn.heads.policy={kind: mlp}", "nn.heads.value={kind: mlp, hidden_sizes: [5]}"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_what_just_keeps_the_rules_loads(ppo, overrides):
    ppo(*overrides)


def test_a_clip_and_an_entropy_bonus_may_fall_to_zero(ppo):
    block = ppo(
        "ppo.clip_epsilon={kind: linear, knots: [[0, 0.1], [10_000, 0]]}",
        "ppo.clip_epsilon_high={kind: step, knots: [[0, 1.5], [5_000, 0.3]]}",
        "ppo.entropy_coef={kind: linear, knots: [[0, 0.02], [10_000, 0]]}",
    ).ppo
    at_half = [value_at(number, 5_000) for number in (block.clip_epsilon, block.clip_epsilon_high, block.entropy_coef)]
    assert at_half == pytest.approx([0.05, 0.3, 0.01])


def test_a_memory_is_refused_where_transitions_are_replayed(errors_of):
    assert errors_of(LSTM) == [
        "--set nn.memory: nn.memory.kind: iqn learns from single transitions, which hold no state to continue from, "
        "got lstm; choose none, stack frames, or use ppo"
    ]


def test_a_memory_is_a_part():
    network = NNConfig.model_validate({"vector": {"kind": "mlp"}, "memory": {"kind": "gru"}, "freeze": ["memory"]})
    assert nn_rules.parts_of(network, "ppo") == ["vector", "memory", "heads", "policy", "value"]
    assert list(nn_rules.check(network, "ppo")) == []
