"""The schema as a whole: descriptions, JSON Schema, differences, imports."""

import json
import subprocess
import sys

import pytest

from tesserl_configs import RunConfig, dump_config, load_config
from tesserl_configs.btr import options_of
from tesserl_configs.diff import Difference, diff_configs
from tesserl_configs.introspection import blocks_in
from tesserl_configs.json_schema import json_schema, search_json_schema, sweep_json_schema
from tesserl_configs.run_keys import MLflowConfig, WandbConfig


def all_blocks():
    found, stack = [], [RunConfig]
    while stack:
        block = stack.pop()
        if block not in found:
            found.append(block)
            stack += [inner for field in block.model_fields.values() for inner in blocks_in(field.annotation)]
    return found


def test_every_key_has_a_description_and_every_block_a_docstring():
    blocks = all_blocks()
    assert len(blocks) > 25
    for block in blocks:
        assert block.__doc__, block
        for name, field in block.model_fields.items():
            alone = len(getattr(field.annotation, "__args__", ())) == 1
            assert field.description or (name == "kind" and alone), (block, name)


def test_every_block_is_frozen_and_refuses_unknown_keys():
    for block in all_blocks():
        assert block.model_config["frozen"], block
        assert block.model_config["extra"] == "forbid", block


def test_the_json_schema_describes_every_key_and_requires_the_kind():
    schema = json_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["else"]["required"] == ["total_steps", "environment", "nn", "algorithm"]
    assert schema["if"] == {"required": ["extends"]}
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["CNNVision"]["required"] == ["kind"]
    assert schema["$defs"]["CVaRRisk"]["required"] == ["eta", "kind"]
    discount = schema["$defs"]["IQNConfig"]["properties"]["discount"]
    assert (discount["minimum"], discount["maximum"], discount["default"]) == (0, 1, 0.99)


def test_the_json_schema_knows_the_switches_and_the_blocks_whose_kind_they_choose():
    schema = json_schema()
    word, block = schema["properties"]["btr"]["anyOf"][0]["oneOf"]
    assert (word["const"], block["$ref"]) == ("all", "#/$defs/BTRConfig")
    without_kind = schema["properties"]["replay"]["oneOf"][-1]
    assert without_kind["not"] == {"required": ["kind"]}
    assert {"capacity", "alpha"} <= set(without_kind["properties"])
    refusals = {rule["if"]["properties"]["algorithm"]["const"]: rule["then"] for rule in schema["allOf"]}
    assert refusals["ppo"]["properties"]["btr"] is False
    assert "btr" not in refusals["iqn"]["properties"]


def test_the_json_schema_of_a_search_is_another_one():
    schema = search_json_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert schema["title"] == "Tesserl search"
    assert schema["required"] == ["config", "space", "trials"]
    assert schema["additionalProperties"] is False


def test_the_json_schema_of_a_sweep_is_another_one():
    schema = sweep_json_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert (schema["$schema"], schema["title"]) == (json_schema()["$schema"], "Tesserl sweep")
    assert schema["required"] == ["seeds", "variants"]
    assert schema["additionalProperties"] is False


def test_a_difference_has_the_path_and_both_values(load):
    left = load()
    right = load("", "seed=2", "iqn.exploration={kind: noisy}", "nn.heads.noisy=true", "nn.heads.hidden_sizes=[5, 7]")
    assert diff_configs(left, left) == []
    assert diff_configs(left, right) == [
        Difference("seed", 1, 2),
        Difference("nn.heads.hidden_sizes", [512], [5, 7]),
        Difference("nn.heads.noisy", False, True),
        Difference("iqn.exploration.kind", "epsilon", "noisy"),
        Difference("iqn.exploration.epsilon.kind", "linear", None),
        Difference("iqn.exploration.epsilon.knots", [[0, 1.0], [250_000, 0.01]], None),
        Difference("iqn.exploration.epsilon", None, 0.0),
    ]


def test_defaults_are_those_of_the_papers(load):
    config = load()
    assert (config.iqn.discount, config.iqn.kappa, config.iqn.num_policy_taus, config.iqn.num_cosines) == (
        0.99,
        1,
        32,
        64,
    )
    assert (config.optimizer.learning_rate, config.optimizer.eps) == (5e-5, 0.01 / 32)
    munchausen = load("", "iqn.munchausen={}").iqn.munchausen
    assert (munchausen.alpha, munchausen.temperature, munchausen.clip) == (0.9, 0.03, -1.0)


@pytest.mark.parametrize("statement", ["import tesserl_configs", "from tesserl_configs import load_config, value_at"])
def test_nothing_imports_torch_or_numpy(statement):
    heavy = run(f"{statement}; import sys; print([m for m in ('torch', 'numpy', 'gymnasium') if m in sys.modules])")
    assert heavy == "[]"


def test_the_package_itself_does_not_wait_for_pydantic():
    code = "import tesserl_configs, sys; print([m for m in ('pydantic', 'yaml') if m in sys.modules])"
    assert run(code) == "[]"


def test_every_public_name_is_there_and_no_other():
    import tesserl_configs

    assert all(getattr(tesserl_configs, name) for name in tesserl_configs.__all__)
    assert tesserl_configs.__all__ == sorted(tesserl_configs.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        tesserl_configs.nothing  # noqa: B018


def test_a_minimal_file_is_enough(write):
    config = load_config(write())
    assert (config.name, config.seed, config.environment.num_envs, config.device) == ("x", 1, 8, "cpu")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_early_stopping_has_a_return_and_a_number_of_evaluations(load, errors_of, write):
    config = load("early_stopping: {return: 475, evaluations: 5}\n")
    assert (config.early_stopping.target, config.early_stopping.evaluations) == (475.0, 5)
    assert load_config(write(dump_config(config), "again.yaml")) == config
    assert load("early_stopping: {return: -3.5}\n").early_stopping.evaluations == 3
    assert load().early_stopping is None
    meaning = "mean return that an evaluation must reach, in the task's own reward units"
    assert errors_of("early_stopping={evaluations: 3}") == [
        f"--set early_stopping: early_stopping.return: missing; {meaning}"
    ]
    assert errors_of("early_stopping={return: x, evaluation: 3}") == [
        f'--set early_stopping: early_stopping.return: expected a number, got "x"; {meaning}',
        "--set early_stopping: early_stopping.evaluation: unknown key; did you mean evaluations?",
    ]
    assert errors_of("early_stopping={return: 1, evaluations: 0}") == [
        "--set early_stopping: early_stopping.evaluations: expected a value >= 1, got 0; number of evaluations in a "
        "row that must reach the return before training stops, >= 1"
    ]


def test_loggers_are_switches_or_blocks(load, errors_of, write):
    config = load("logging: {wandb: {project: poles, tags: [a, b]}, mlflow: true, trackio: {project: x}}\n")
    assert load_config(write(dump_config(config), "again.yaml")) == config
    assert options_of(config.logging.wandb, WandbConfig) == WandbConfig(project="poles", tags=("a", "b"))
    assert options_of(config.logging.mlflow, MLflowConfig) == MLflowConfig(experiment="tesserl")
    assert options_of(load().logging.wandb, WandbConfig) is None
    assert errors_of("logging.mlflow={projects: x}") == [
        "--set logging.mlflow: logging.mlflow.projects: unknown key; legal here: experiment, tags"
    ]
    assert errors_of("logging.wandb=please")[0].startswith(
        '--set logging.wandb: logging.wandb: expected keys and values, got "please"; send metrics and configuration'
    )
    meaning = "tags of the run, at most 64 characters each"
    assert errors_of("logging.wandb.tags=x") == [
        f'--set logging.wandb.tags: logging.wandb.tags: expected a list, got "x"; {meaning}'
    ]
    assert errors_of(f"logging.wandb.tags=[{'x' * 65}]")[0].startswith(
        "--set logging.wandb.tags: logging.wandb.tags.0: expected at most 64 characters, got 65"
    )
