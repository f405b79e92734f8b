"""Algorithms that other packages declare, by an entry point of the group tesserl.algorithms."""

import sys

import pytest

from tesserl_configs import ConfigError, dump_config, load_config
from tesserl_configs.algorithms import _plugin, installed
from tesserl_configs.diff import diff_configs
from tesserl_configs.json_schema import json_schema
from tesserl_configs.schema import RunConfig, extended

DECLARATION = """
from pydantic import Field
from tesserl_configs.algorithms import Algorithm
from tesserl_configs.base import Block, Count, Fraction

class SarsaConfig(Block):
    discount: Fraction = Field(default=0.9, description="Discount of one step, in [0, 1].")
    num_steps: Count = Field(default=8, description="Steps of a rollout, >= 1.")

ALGORITHM = Algorithm(
    name="sarsa", options=SarsaConfig, title="Options of Sarsa.", builder="sarsa_builder", blocks=("replay",),
    optimizer={"learning_rate": 0.125}, hidden_sizes=(5,),
)
"""
FILE = """
total_steps: 2000
environment: {id: CartPole-v1}
nn: {vector: {kind: mlp, hidden_sizes: [7]}}
algorithm: sarsa
"""


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Return a function that makes a distribution importable, which declares one algorithm."""

    def make(name="sarsa-rl", algorithm="sarsa", module="sarsa_plugin", source=DECLARATION):
        (tmp_path / f"{module}.py").write_text(source)
        metadata = tmp_path / f"{name.replace('-', '_')}-1.2.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (metadata / "entry_points.txt").write_text(f"[tesserl.algorithms]\n{algorithm} = {module}:ALGORITHM\n")
        made.append(module)

    made = []
    monkeypatch.syspath_prepend(tmp_path)
    caches = (_plugin, extended)
    for cache in caches:
        cache.cache_clear()
    yield make
    for cache in caches:
        cache.cache_clear()
    for module in made:
        sys.modules.pop(module, None)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sarsa.yaml"
    path.write_text(FILE)
    return path


def test_a_declared_algorithm_is_loaded_dumped_and_loaded_again(distribution, file, tmp_path):
    distribution()
    config = load_config(file, ["sarsa.num_steps=3", "replay={kind: prioritized, capacity: 50, warmup_steps: 9}"])
    assert isinstance(config, RunConfig)
    assert config.options.num_steps == 3
    assert config.options.discount == 0.9
    assert config.optimizer.learning_rate == 0.125
    assert config.nn.heads.hidden_sizes == (5,)
    assert config.replay.capacity == 50
    text = dump_config(config)
    assert "sarsa:" in text
    assert "replay:" in text
    assert "pairs:" not in text
    assert "iqn:" not in text
    (tmp_path / "again.yaml").write_text(text)
    assert load_config(tmp_path / "again.yaml") == config
    assert "sarsa.num_steps" in [difference.path for difference in diff_configs(load_config(file), config)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sarsa: {num_step: 3}", "sarsa.yaml:6: sarsa.num_step: unknown key; did you mean num_steps?"),
        ("sarsa: {discount: 2}", "sarsa.yaml:6: sarsa.discount: expected a value <= 1, got 2; discount of one step"),
        ("ppo: {num_steps: 3}", "sarsa.yaml:6: ppo: belongs to algorithm ppo, got algorithm sarsa; remove the block"),
        ("pairs: {}", "sarsa.yaml:6: pairs: belongs to algorithm dpo or cpl, got algorithm sarsa"),
        ("discount: 0.5", "did you mean sarsa.discount?"),
    ],
)
def test_its_block_is_validated_with_the_same_messages(distribution, file, line, message):
    distribution()
    file.write_text(FILE + line + "\n")
    with pytest.raises(ConfigError) as raised:
        load_config(file)
    assert message in str(raised.value)


def test_the_json_schema_has_its_block(distribution):
    distribution()
    schema = json_schema()
    assert set(schema["$defs"]["SarsaConfig"]["properties"]) == {"discount", "num_steps"}
    assert "sarsa" in schema["properties"]["algorithm"]["enum"]
    [case] = [case for case in schema["allOf"] if case["if"]["properties"]["algorithm"]["const"] == "sarsa"]
    assert case["then"]["properties"] == dict.fromkeys(("iqn", "ppo", "grpo", "dpo", "cpl", "btr", "pairs"), False)


VALUES = DECLARATION.replace("hidden_sizes=(5,)", 'hidden_sizes=(5,), network="value", optimizer_kind="radam"')


def test_an_algorithm_of_action_values_has_their_streams_and_no_embedding(distribution, file):
    distribution(source=VALUES)
    heads = load_config(file, ["nn.heads={dueling: true, value: {kind: mlp}}", "nn.freeze=[advantage]"]).nn.heads
    assert heads.dueling
    for override, message in [
        ("nn.freeze=[embedding]", "this network has no part embedding; parts: vector, heads, advantage"),
        ("nn.heads={policy: {kind: mlp}}", "nn.heads.policy: sarsa has no policy"),
        ("nn.heads={value: {kind: mlp}}", "nn.heads.value: there is no value stream"),
        ("nn.heads={shared_hidden_sizes: [3]}", "belongs to algorithms with a policy, got sarsa"),
    ]:
        with pytest.raises(ConfigError) as raised:
            load_config(file, [override])
        assert message in str(raised.value)


def test_it_has_no_collector_workers_by_default(distribution, file):
    distribution()
    with pytest.raises(ConfigError) as raised:
        load_config(file, ["collectors.kind=process"])
    assert str(raised.value) == (
        "--set collectors.kind: collectors.kind: process is for algorithm iqn, ppo, grpo, dpo, cpl, got algorithm "
        "sarsa; choose local"
    )


def test_its_kind_of_optimizer_is_the_default_and_no_more(distribution, file):
    distribution(source=VALUES)
    assert (load_config(file).optimizer.kind, load_config(file).optimizer.learning_rate) == ("radam", 0.125)
    chosen = load_config(file, ["optimizer={kind: adamw}"]).optimizer
    assert (chosen.kind, chosen.learning_rate) == ("adamw", 0.125)
    assert load_config(file, ["optimizer={kind: sgd}"]).optimizer.learning_rate == 1e-2


def test_a_declaration_is_imported_only_when_it_is_named(distribution, file):
    distribution(source="raise RuntimeError('imported')")
    file.write_text(FILE.replace("sarsa", "ppo"))
    assert load_config(file).algorithm == "ppo"


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("ALGORITHM = 3", "must declare an Algorithm of the name sarsa, got int"),
        (DECLARATION.replace('name="sarsa"', 'name="other"'), "must declare an Algorithm of the name sarsa, got other"),
    ],
)
def test_a_broken_declaration_names_its_distribution_and_the_cause(distribution, file, source, cause):
    distribution(source=source)
    with pytest.raises(ConfigError) as raised:
        load_config(file)
    assert "sarsa-rl 1.2" in str(raised.value)
    assert cause in str(raised.value)


def test_a_name_that_is_declared_twice_is_refused_with_both_distributions(distribution, file):
    distribution()
    distribution(name="more-sarsa", module="more_sarsa")
    with pytest.raises(ConfigError, match=r"sarsa is declared by more-sarsa 1.2 and sarsa-rl 1.2; uninstall one"):
        load_config(file)


def test_a_name_of_this_project_cannot_be_declared_again(distribution):
    distribution(algorithm="ppo")
    with pytest.raises(ConfigError, match=r"ppo is declared by tesserl-configs and sarsa-rl 1.2; uninstall one"):
        installed()
