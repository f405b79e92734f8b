"""Every number has two bounds, every block a type, and sizes that multiply fit into some machine."""

import json

import pytest

from tesserl_configs.base import MOST_NAME_BYTES, plain
from tesserl_configs.json_schema import json_schema, search_json_schema, sweep_json_schema
from tesserl_configs.sweep import load_sweep

PPO = """\
total_steps: 1_000_000_000_000
environment: {id: CartPole-v1, num_envs: 2}
nn: {vector: {kind: mlp, hidden_sizes: [8]}}
algorithm: ppo
ppo: {num_steps: 32, num_minibatches: 2}
"""
IQN = """\
total_steps: 1000
environment: {id: CartPole-v1, num_envs: 2}
nn: {vector: {kind: mlp, hidden_sizes: [8]}}
algorithm: iqn
replay: {kind: uniform, warmup_steps: 100, capacity: 1000}
"""
DPO = """\
total_steps: 1000
environment: {id: CartPole-v1, num_envs: 2}
nn: {vector: {kind: mlp, hidden_sizes: [8]}}
algorithm: dpo
"""


def leaves(schema, path=""):
    """(path, schema) of every number and text in a JSON Schema."""
    if isinstance(schema, dict):
        if schema.get("type") in ("integer", "number", "string"):
            yield path, schema
        for key, value in schema.items():
            if key not in ("if", "then", "not", "default", "propertyNames"):
                yield from leaves(value, f"{path}/{key}")
    elif isinstance(schema, list):
        for index, entry in enumerate(schema):
            yield from leaves(entry, f"{path}/{index}")


@pytest.mark.parametrize(
    "schema", [json_schema(), sweep_json_schema(), search_json_schema()], ids=["run", "sweep", "search"]
)
def test_every_number_has_two_bounds_and_every_text_a_length(schema):
    found = list(leaves(schema))
    assert len(found) > 2
    open_ones = [
        path
        for path, leaf in found
        if not {"const", "enum"} & set(leaf)
        and not (
            {"minimum", "exclusiveMinimum"} & set(leaf) and {"maximum", "exclusiveMaximum"} & set(leaf)
            if leaf["type"] != "string"
            else "maxLength" in leaf or leaf.get("pattern", "").startswith("^(cpu|cuda")
        )
    ]
    assert open_ones == []


def test_every_list_of_the_network_has_a_length():
    lists = [
        (name, key)
        for name, block in json_schema()["$defs"].items()
        for key, field in block.get("properties", {}).items()
        if key in ("hidden_sizes", "channels", "kernel_sizes", "strides", "knots") and field.get("type") == "array"
        if "maxItems" not in field
    ]
    assert lists == []


TOO_LARGE = {
    "seed": (2**63, "<= 9223372036854775807"),
    "total_steps": (10**30, "<= 1e15"),
    "environment.num_envs": (10**9, "<= 65536"),
    "environment.worker_timeout": (1e300, "<= 1e6"),
    "evaluation.episodes": (2**64, "<= 1e6"),
    "evaluation.final_episodes": (10**30, "<= 1e6"),
    "evaluation.seed": (2**31, "<= 2147483647"),
    "evaluation.num_envs": (10**30, "<= 65536"),
    "evaluation.max_episode_steps": (10**30, "<= 1e15"),
    "checkpoint.keep_last": (10**30, "<= 1e6"),
    "logging.interval": (10**400, "<= 1e15"),
    "num_threads": (10**9, "<= 1024"),
    "nn.vector.hidden_sizes.0": (10**30, "<= 65536"),
    "optimizer.learning_rate": (1e300, "<= 1000"),
    "ppo.num_epochs": (10**30, "<= 1e6"),
    "ppo.value_coef": (1e300, "<= 1e9"),
}
TOO_SMALL = {
    "optimizer.eps": (1e-320, ">= 1e-20"),
    "optimizer.learning_rate": (1e-300, ">= 1e-12"),
    "ppo.max_grad_norm": (5e-324, ">= 1e-12"),
    "ppo.clip_epsilon": (1e-100, ">= 1e-12"),
}


@pytest.mark.parametrize(("key", "value", "bound"), [
    (key, *rest) for numbers in (TOO_LARGE, TOO_SMALL) for key, rest in numbers.items()
])  # fmt: skip
def test_a_number_that_no_machine_could_use_is_refused_by_its_key(errors_in, key, value, bound):
    [message] = errors_in(PPO, f"{key}={value}")
    assert message.startswith(f"--set {key}: {key}: expected a value {bound}, got ")


@pytest.mark.parametrize("seed", [2**63 - 1, 0])
def test_a_seed_at_its_bounds_loads(load, seed):
    assert load("", f"seed={seed}").seed == seed


def test_the_knots_of_a_schedule_have_the_bounds_of_the_number(errors_in):
    [message] = errors_in(PPO, "ppo.entropy_coef={kind: linear, knots: [[0, 1e308], [10, 0]]}")
    assert "ppo.entropy_coef.knots.0.1: expected a value <= 1e9, got 1e+308" in message
    [message] = errors_in(PPO, "optimizer.learning_rate={kind: exponential, knots: [[0, 1e-3], [10, 1e-300]]}")
    assert message.endswith(
        "the values of the knots must lie in [1e-12, 1000] or be 0, not all of them, got [0.001, 1e-300]"
    )
    [message] = errors_in(PPO, f"optimizer.learning_rate={{kind: linear, knots: [[0, 1], [{10**16}, 1]]}}")
    assert "knots.1.0: expected a value <= 1e15" in message


OTHER_TYPES = ["{}", "[ppo]", "null", "7", "true", ".nan", "{a: 1}", "[[1]]"]
DEFAULTS = {("btr", "null"), ("name", "null"), ("ppo", "{}")}
KEYS = ["algorithm", "optimizer.kind", "nn.vector.kind", "environment", "nn", "ppo", "btr", "name"]


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key in KEYS for value in OTHER_TYPES if (key, value) not in DEFAULTS]
)
def test_a_value_of_another_type_is_a_message_with_the_key(errors_in, key, value):
    messages = errors_in(PPO, f"{key}={value}")
    assert any(key.removesuffix(".kind") in message for message in messages)


def test_a_huge_number_of_steps_beside_btr_is_refused_by_its_key(errors_in):
    messages = errors_in(IQN + "btr: {noisy: true}\n", f"total_steps={10**400}")
    assert messages[0].startswith("--set total_steps: total_steps: expected a value <= 1e15, got 1000")


def test_an_unhashable_kind_beside_btr_is_refused_by_its_key(errors_in):
    text = IQN.replace("vector: {kind: mlp, hidden_sizes: [8]}", "vision: {kind: []}") + "btr: all\n"
    assert any("nn.vision" in message for message in errors_in(text))


@pytest.mark.parametrize("ratio", ["1e-320", ".inf", ".nan", "1e400", "true", "[]"])
def test_btr_takes_no_part_of_a_ratio_that_is_refused(errors_in, ratio):
    text = IQN.replace("capacity: 1000", f"capacity: 1000, ratio: {ratio}") + "btr: all\n"
    assert any("replay.ratio: expected " in message for message in errors_in(text))


@pytest.mark.parametrize(
    "name",
    ["a" * (MOST_NAME_BYTES + 1), "\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 67],
    ids=["letters", "letters of three bytes"],
)
def test_a_name_that_no_directory_could_have_is_refused(errors_in, name):
    [message] = errors_in(PPO, f"name={name}")
    assert message.startswith("--set name: name: expected at most 200 ")
    assert errors_in(PPO.replace("id:", "idd:"), f"name={name[:60]}")[0].count("name") == 0


def test_the_name_of_a_run_of_a_sweep_is_not_too_long(write, tmp_path):
    write(PPO, "base.yaml")
    names = {"task": "t" * 120, "variant": "v" * 100}
    sweep = write(
        f"config: base.yaml\nseeds: [1]\ntasks: {{{names['task']}: {{}}}}\nvariants: {{{names['variant']}: {{}}}}\n",
        "sweep.yaml",
    )
    with pytest.raises(ValueError, match=r"expected at most 200 bytes, as it becomes a directory, got 2.*shorten"):
        load_sweep(sweep)


def test_characters_beyond_the_basic_plane_pass_through_a_sweep(write):
    write(PPO, "base.yaml")
    sweep = write(
        'config: base.yaml\nseeds: [1]\nvariants: {a: {environment.kwargs: {text: "\N{GRINNING FACE}"}}}\n',
        "sweep.yaml",
    )
    assert load_sweep(sweep).runs[0].config.environment.kwargs == {"text": "\N{GRINNING FACE}"}


@pytest.mark.parametrize("text", ['"a\\nb"', '"a\\0b"', '"\\x7f"', '""', "a" * 1001])
@pytest.mark.parametrize("key", ["environment.id", "initial_weights"])
def test_text_is_one_line(errors_in, key, text):
    assert errors_in(PPO, f"{key}={text}")[0].startswith(f"--set {key}: {key}: ")


@pytest.mark.parametrize(
    "device", ["cuda:01", "cuda:100", "cuda:\N{ARABIC-INDIC DIGIT THREE}", "cpu:0", "cuda:", " cpu"]
)
def test_a_device_that_torch_would_not_parse_is_refused(errors_in, device):
    assert errors_in(PPO, f'device="{device}"')[0].startswith("--set device: device: got ")


PRODUCTS = {
    "layers": (PPO, ["nn.vector.hidden_sizes=[65536, 65536]"], "nn.vector.hidden_sizes: expected at most 2147483648"),
    "layers of a head": (PPO, ["nn.heads.hidden_sizes=[65536, 65536]"], "nn.heads.hidden_sizes: expected at most"),
    "memory": (PPO, ["nn.memory={kind: lstm, hidden_size: 65536}"], "nn.memory.hidden_size: expected at most"),
    "transformer": (
        IQN,
        ["nn.heads.advantage={kind: transformer, d_model: 32768, num_layers: 256}"],
        "nn.heads.advantage.d_model: expected at most",
    ),
    "rollout": (
        PPO,
        ["environment.num_envs=65536", "ppo.num_steps=65536"],
        "ppo.num_steps: expected environment.num_envs * ppo.num_steps of at most 1e9, got 4294967296",
    ),
    "processes": (
        PPO,
        ["environment.num_envs=2000", "environment.vectorization=async"],
        "environment.num_envs: expected at most 1024 where environment.vectorization is async",
    ),
    "errors of a loss": (
        IQN,
        ["iqn.batch_size=1000", "iqn.num_taus=10000", "iqn.num_target_taus=10000"],
        "iqn.batch_size: expected at most 1e10 errors in a loss",
    ),
    "pairs": (
        DPO,
        ["pairs.source.num_groups=10", "pairs.source.group_size=65536"],
        "pairs.source.group_size: expected at most 1e7 pairs in an iteration",
    ),
    "trajectories": (
        DPO,
        ["pairs.source.num_groups=100_000", "pairs.source.group_size=50", "pairs.source.pairs_per_iteration=9"],
        "pairs.source.num_groups: expected num_groups * group_size of at most 1e6 trajectories",
    ),
    "segments": (
        DPO,
        ["pairs.source.segments={kind: fixed, length: 1_000_000}", "pairs.source.buffer_size=1_000_000"],
        "pairs.source.buffer_size: expected at most 1e9 steps in all pairs that are kept",
    ),
}


@pytest.mark.parametrize(("text", "overrides", "message"), PRODUCTS.values(), ids=PRODUCTS)
def test_sizes_that_multiply_beyond_any_memory_are_refused_by_a_key(errors_in, text, overrides, message):
    assert any(message in found for found in errors_in(text, *overrides))


IMAGES = """\
total_steps: 1000
environment:
  id: CarRacing-v3
  kwargs: {continuous: false}
  wrappers: [{kind: resize, height: 4096, width: 4096}, {kind: frame_stack, num_frames: STACK}]
nn: {vision: {kind: cnn}}
algorithm: iqn
replay: {kind: uniform, warmup_steps: 100, capacity: CAPACITY}
"""


def test_an_observation_of_images_fits_into_memory(errors_in):
    [message] = errors_in(IMAGES.replace("STACK", "128").replace("CAPACITY", "1000"))
    # 4096 * 4096 * 128 bytes
    assert "environment.wrappers.1: expected an observation of at most 1 GiB, got 2 GiB; shrink it" in message


def test_a_replay_of_images_fits_on_a_disk(errors_in):
    [message] = errors_in(IMAGES.replace("STACK", "4").replace("CAPACITY", "1_000_000_000"))
    # 10^9 frames of 2^24 bytes, each kept once
    assert "replay.capacity: expected images of at most 65,536 GiB, got 15,625,000 GiB; keep fewer" in message


@pytest.mark.parametrize("text", [
    "total_steps: 1000\nalgorithm: ppo\nenvironment: {id: a, kwargs: {x: \"\\ud800\"}}\n",
    "total_steps: 1000\n\"\\udfff\": 1\n",
    "a: \"\\U00110000\"\n",
    "a: !!map b\n",
    "a: &x {b: 1}\nc: {<<: *x}\n",
    "a: \x07\n",
])  # fmt: skip
def test_text_that_yaml_allows_and_no_file_can_hold_has_a_line(errors_in, text):
    assert errors_in(text)[0].startswith("x.yaml:") or "not valid YAML" in errors_in(text)[0]


def test_a_file_whose_path_is_impossible_is_a_configuration_error(write):
    from tesserl_configs import ConfigError, load_config

    for path in ("a\0b", "a" * 5000):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_config(path)


@pytest.mark.parametrize(
    ("number", "text"),
    [(65_536, "65536"), (10**15, "1e15"), (1e-12, "1e-12"), (0.5, "0.5"), (2**63 - 1, str(2**63 - 1))],
)
def test_a_bound_is_written_as_a_file_would_write_it(number, text):
    assert plain(number) == text
    assert type(number)(json.loads(text)) == number


OUT_OF_RANGE = {
    "grpo.off_policy_threshold=0": "grpo.off_policy_threshold: expected a value >= 1e-12, got 0; ignore negative",
    "grpo.loss={kind: sapo, temperature_positive: 0}": "grpo.loss.temperature_positive: expected a value >= 1e-12",
    "grpo.loss={kind: sapo, temperature_negative: -1}": "grpo.loss.temperature_negative: expected a value >= 1e-12",
    "grpo.loss={kind: clip, temperature_positive: 1}": (
        "grpo.loss.temperature_positive: unknown key for kind clip; it belongs to kind sapo"
    ),
    "grpo.kl={importance_weighted: perhaps}": 'grpo.kl.importance_weighted: expected true or false, got "perhaps"',
    "dpo.loss={kind: kto, desirable_weight: -1}": "dpo.loss.desirable_weight: expected a value >= 0, got -1",
    "dpo.loss={kind: bco, undesirable_weight: -1}": "dpo.loss.undesirable_weight: expected a value >= 0, got -1",
    "dpo.ld_alpha=2": "dpo.ld_alpha: expected a value <= 1, got 2",
    "dpo.use_weighting=perhaps": 'dpo.use_weighting: expected true or false, got "perhaps"',
    "ppo.distribution={kind: normal, state_dependent_scale: 2}": (
        "ppo.distribution.state_dependent_scale: expected true or false, got 2"
    ),
    'logging.wandb={entity: ""}': 'logging.wandb.entity: got ""; user or team',
    "environment.start_timeout=0": "environment.start_timeout: expected a value >= 0.001, got 0",
}


@pytest.mark.parametrize(("override", "message"), OUT_OF_RANGE.items(), ids=OUT_OF_RANGE)
def test_a_value_out_of_range_is_named_with_its_meaning(errors_in, override, message):
    block = override.partition(".")[0]
    text = PPO if block not in ("grpo", "dpo") else DPO.replace("algorithm: dpo", f"algorithm: {block}")
    assert errors_in(text, override)[0].startswith(f"--set {override.partition('=')[0]}: {message}")
