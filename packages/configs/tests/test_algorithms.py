"""One file holds the block of one algorithm; defaults may depend on it."""

import pytest
import yaml

from tesserl_configs import RunConfig, dump_config, load_config
from tesserl_configs.algorithms import owners_of
from tesserl_configs.diff import diff_configs
from tesserl_configs.json_schema import json_schema
from tesserl_configs.schema import OWNED

PPO = """\
total_steps: 10_000
environment: {id: CartPole-v1}
nn: {vector: {kind: mlp}}
algorithm: ppo
"""


@pytest.fixture
def ppo(write):
    return lambda *overrides: load_config(write(PPO), overrides)


def test_a_minimal_file_of_ppo_has_the_values_of_cleanrl(ppo):
    config = ppo()
    assert (config.optimizer.kind, config.optimizer.learning_rate, config.optimizer.eps) == ("adam", 2.5e-4, 1e-5)
    assert config.nn.heads.hidden_sizes == ()
    block = config.ppo
    assert (block.num_steps, block.num_epochs, block.num_minibatches) == (128, 4, 4)
    assert (block.discount, block.gae_lambda, block.clip_epsilon) == (0.99, 0.95, 0.2)
    assert (block.entropy_coef, block.value_coef, block.max_grad_norm) == (0.01, 0.5, 0.5)
    assert (block.clip_epsilon_high, block.dual_clip, block.value_clip, block.target_kl) == (None,) * 4
    assert (block.distribution.kind, block.reward_scaling.kind, block.loss) == ("normal", "none", "tesserl")


@pytest.mark.parametrize("kind", ["adamw", "radam"])
def test_the_defaults_of_an_algorithm_reach_the_family_of_its_optimizer(ppo, kind):
    optimizer = ppo(f"optimizer={{kind: {kind}, eps: 1e-7}}").optimizer
    assert (optimizer.kind, optimizer.learning_rate, optimizer.eps) == (kind, 2.5e-4, 1e-7)


def test_another_optimizer_keeps_its_own_defaults(ppo):
    assert ppo("optimizer={kind: sgd}").optimizer.learning_rate == 1e-2


def test_what_is_written_goes_before_the_defaults_of_the_algorithm(ppo):
    config = ppo("optimizer.learning_rate=1e-3", "nn.heads={hidden_sizes: [7]}")
    assert (config.optimizer.learning_rate, config.optimizer.eps) == (1e-3, 1e-5)
    assert config.nn.heads.hidden_sizes == (7,)


def test_nothing_changes_for_iqn(load):
    config = load()
    assert (config.optimizer.learning_rate, config.optimizer.eps) == (5e-5, 0.01 / 32)
    assert config.nn.heads.hidden_sizes == (512,)


def test_every_block_is_there_and_the_foreign_ones_have_their_defaults(ppo, load):
    assert ppo().iqn.num_taus == 8
    assert ppo().replay.kind == "uniform"
    assert load().ppo.num_steps == 128


def test_what_is_printed_belongs_to_the_algorithm_and_loads_to_an_equal_configuration(ppo, write):
    config = ppo("ppo.clip_epsilon={kind: linear, knots: [[0, 0.1], [10_000, 0]]}", "nn.memory={kind: lstm}")
    text = dump_config(config)
    data = yaml.safe_load(text)
    assert not {"iqn", "replay"} & set(data)
    assert "atari" not in data["environment"]
    assert (data["optimizer"]["eps"], data["nn"]["heads"]["hidden_sizes"]) == (1e-5, [])
    assert load_config(write(text, "again.yaml")) == config
    assert RunConfig.model_validate(config.model_dump()) == config


def test_every_foreign_block_is_refused_together_with_other_mistakes(errors_in):
    assert errors_in(PPO + "iqn: {num_tau: 5}\nreplay: {kind: uniform}\nseed: -1\n") == [
        "x.yaml:5: iqn: belongs to algorithm iqn, got algorithm ppo; remove the block",
        "x.yaml:6: replay: belongs to algorithm iqn, got algorithm ppo; remove the block",
        "x.yaml:7: seed: expected a value >= 0, got -1; seed of all random numbers of the run, >= 0",
    ]


def test_without_an_algorithm_no_block_is_foreign(errors_in):
    [message] = errors_in(PPO.replace("algorithm: ppo", "algorithm: pop") + "iqn: {}\nreplay: {kind: uniform}\n")
    assert message.startswith("x.yaml:4: algorithm: expected one of iqn, ppo")


def test_a_misplaced_key_is_sought_in_the_blocks_of_the_algorithm(errors_in, errors_of):
    assert errors_in(PPO + "discount: 0.9\n")[0].endswith("unknown key here; did you mean ppo.discount?")
    assert errors_of("discount=0.9")[0].endswith("unknown key here; did you mean iqn.discount?")


def test_two_algorithms_differ_in_their_blocks(ppo, load):
    paths = [difference.path for difference in diff_configs(load("", "total_steps=10_000"), ppo())]
    assert {"algorithm", "iqn.num_taus", "replay.kind", "ppo.num_steps", "optimizer.eps"} <= set(paths)


def test_the_json_schema_refuses_foreign_blocks():
    schema = json_schema()
    by_algorithm = {
        case["if"]["properties"]["algorithm"]["const"]: case["then"]["properties"] for case in schema["allOf"]
    }
    assert by_algorithm["ppo"]["iqn"] is by_algorithm["ppo"]["replay"] is False
    assert "ppo" not in by_algorithm["ppo"]
    for block in OWNED:
        owners = owners_of(block)
        assert block in schema["properties"]
        assert {algorithm for algorithm, refused in by_algorithm.items() if block not in refused} == set(owners)
    cases = schema["$defs"]["EnvironmentConfig"]["allOf"]
    assert {"if": {"properties": {"vectorization": {"const": "sync"}}, "required": []},
            "then": {"properties": {"atari": False}}} in cases  # fmt: skip
    assert len(cases) == 3
