import pytest

from tesserl_configs import ConfigError, dump_config, load_config

EVERYTHING = """\
name: every.thing-1
seed: 7
total_steps: 60_000
environment:
  id: Some/Task-v1
  num_envs: 3
  vectorization: async
  kwargs: {mode: "1e-4", on: "yes", size: [1, 2.5, null], nested: {deep: true}, time: 12:30, big: 1e6}
  wrappers:
    - {kind: time_limit, max_episode_steps: 5}
    - {kind: frame_skip, num_frames: 4}
    - {kind: frame_stack, num_frames: 3}
    - {kind: reward_scale, scale: 1e-2}
    - {kind: reward_clip, low: -2, high: 3}
nn:
  vision: {kind: cnn, channels: [5, 7], kernel_sizes: [3, 2], strides: [2, 1], paddings: [0, 1], hidden_sizes: [11]}
  vector: {kind: mlp, hidden_sizes: [], normalization: {kind: fixed, mean: [0.5, -1], std: [1, 2.5e+0]}}
  fusion:
    {kind: post_concat, layout: {kind: token_sequence, vector_tokens: {kind: per_feature}}, trunk: {kind: mlp}}
  heads: {hidden_sizes: [], dueling: true, noisy: true, value: {kind: transformer, feedforward_ratio: 2}}
  learning_rate_factors: {trunk: 1e-1}
  freeze: [vision]
algorithm: iqn
iqn:
  tau_sampling: antithetic
  munchausen: {log_policy: online}
  target_update: {kind: hard, interval: 5}
  exploration: {kind: boltzmann, temperature: {kind: exponential, knots: [[0, 1], [1_000, 1e-2]]}, epsilon: 0}
  risk: {kind: wang, eta: -0.75}
  max_grad_norm: null
optimizer: {kind: adamw, learning_rate: {kind: linear, knots: [[0, 1e-3], [60_000, 0]]}, weight_decay: 1e-5}
replay: {kind: prioritized, capacity: 5_000, warmup_steps: 500, storage: memmap, beta: {kind: step, knots: [[0, 0.4]]}}
evaluation: {interval: 3}
checkpoint: {keep_best: false}
logging: {tensorboard: false, wandb: true}
device: cuda:1
num_threads: 2
"""


def test_what_is_dumped_loads_to_an_equal_configuration(write):
    config = load_config(write(EVERYTHING))
    assert load_config(write(dump_config(config), "again.yaml")) == config


@pytest.mark.parametrize("kind", ["adam", "adamw", "radam", "sgd"])
def test_every_optimizer_survives_the_round_trip(load, write, kind):
    config = load("", f"optimizer={{kind: {kind}}}")
    assert load_config(write(dump_config(config))) == config
    assert config.optimizer.kind == kind


def test_the_dump_is_deterministic_and_puts_the_kind_first(write):
    text = dump_config(load_config(write(EVERYTHING)))
    assert text == dump_config(load_config(write(text)))
    assert "optimizer:\n  kind: adamw\n" in text
    assert "replay:\n  kind: prioritized\n" in text


def test_text_that_looks_like_a_number_stays_text(write):
    kwargs = load_config(write(EVERYTHING)).environment.kwargs
    assert kwargs["mode"] == "1e-4"
    assert kwargs["on"] == "yes"
    assert kwargs["time"] == "12:30"
    assert kwargs["big"] == 1e6


def test_numbers_are_read_as_people_write_them(load):
    assert load("", "optimizer.learning_rate=1e-4").optimizer.learning_rate == 1e-4
    assert load("", "total_steps=60_000").total_steps == 60_000
    assert load("", "total_steps=1e6").total_steps == 1_000_000
    assert load("", "seed=010").seed == 10


def test_the_configuration_cannot_be_changed(load):
    with pytest.raises(ValueError, match="frozen"):
        load().iqn.num_taus = 3


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("x.yaml", "x"),
        ("configs/iqn/cartpole.yaml", "iqn-cartpole"),
        ("configs/old/configs/a/b/c.yaml", "a-b-c"),
        ("my run (2).yaml", "my-run-2"),
        ("....yaml", "run"),
    ],
)
def test_a_run_without_a_name_is_named_after_its_file(write, file, name):
    assert load_config(write(name=file)).name == name


def test_a_written_name_wins(load):
    assert load("name: mine\n").name == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.yaml: the file is empty; expected keys and values"),
        ("# nothing\n", "x.yaml: the file is empty; expected keys and values"),
        ("- 1\n", "x.yaml: expected keys and values, got list at the top level"),
        ("words\n", "x.yaml: expected keys and values, got str at the top level"),
        ("a: [1\nb: 2\n", "x.yaml:2: not valid YAML, line 2, column 2: while parsing a flow sequence; "
         "expected ',' or ']', but got ':'"),
        ("a: \tb: c\n", None),
        ("a: 1\n---\nb: 1\n", "x.yaml:2: not valid YAML, line 2, column 1: expected a single document in the stream; "
         "but found another document"),
        ("a: *b\n", "x.yaml:1: not valid YAML, line 1, column 4: found undefined alias 'b'"),
        ("a: !!python/object/apply:os.system [ls]\n", "x.yaml:1: the tag tag:yaml.org,2002:python/object/"
         "apply:os.system is not allowed; write plain values"),
        ("a: !!int b\n", "x.yaml:1: 'b' is not of type int"),
        ("a: &a [*a]\n", "x.yaml:1: nested too deeply or too large; an alias that contains itself?"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_mapping_is_refused_with_line_and_column(errors_in, text, message):
    [got] = errors_in(text)
    assert got.startswith("x.yaml:1: not valid YAML, line 1, column") if message is None else got == message


def test_aliases_cannot_blow_a_small_file_up(errors_in):
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    [message] = errors_in("\n".join(lines))
    assert "nested too deeply or too large" in message


def test_deep_nesting_is_an_error_and_no_crash(errors_in):
    [message] = errors_in("a: " + "[" * 5_000)
    assert "not valid YAML" in message


def test_keys_that_stand_twice_are_named_with_both_lines(errors_in):
    text = "seed: 1\ntotal_steps: 9\nseed: 2\nenvironment: {id: x, id: y}\nalgorithm: iqn\nnn: {vector: {kind: mlp}}\n"
    messages = errors_in(text, "replay.warmup_steps=9", "iqn.batch_size=9")
    assert messages == [
        "x.yaml:3: seed: the key is repeated, first in line 1; remove one",
        "x.yaml:4: environment.id: the key is repeated, first in line 4; remove one",
    ]


def test_a_key_that_is_a_list_is_refused(errors_in):
    assert "x.yaml:1: the file: a key must be text" in errors_in("? [a, b]\n: 1\n")


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="expected a YAML file, got a directory; name a file in it"):
        load_config(tmp_path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.yaml: cannot be read: No such file or directory"):
        load_config(tmp_path / "gone.yaml")


def test_a_file_that_is_not_utf_8_is_refused(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"name: caf\xe9\n")
    with pytest.raises(ConfigError, match="expected UTF-8 text, got byte 0xe9 at 9; save the file as UTF-8"):
        load_config(path)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path, write):
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + write().read_bytes())
    assert load_config(path).total_steps == 1000


def test_the_messages_of_an_error_are_its_text(write):
    with pytest.raises(ConfigError) as caught:
        load_config(write("seed: -1\n"))
    assert str(caught.value).splitlines() == list(caught.value.messages)
    assert len(caught.value.messages) == 5  # seed, and the four keys that every run has
