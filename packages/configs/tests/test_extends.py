"""``extends``: a file that starts from the keys of another one."""

import pytest

from tesserl_configs import ConfigError, dump_config, load_config

BASE = """\
name: base
total_steps: 10_000
environment:
  id: CartPole-v1
  num_envs: 4
  wrappers:
    - {kind: time_limit, max_episode_steps: 200}
nn: {vector: {kind: mlp, hidden_sizes: [32, 32]}}
algorithm: ppo
ppo: {num_steps: 100, num_minibatches: 4, entropy_coef: 0.02}
optimizer: {kind: adam, learning_rate: 1e-3, eps: 1e-6}
"""


@pytest.fixture
def extended(write):
    """Load a file that extends `BASE`, which stands in a directory beside it."""

    def load(text: str, *overrides: str, base: str = BASE):
        write(base, "bases/base.yaml")
        return load_config(write(f"extends: bases/base.yaml\n{text}", "own.yaml"), overrides)

    return load


@pytest.fixture
def messages(extended, tmp_path):
    """Return the messages of a file that does not load, without the directory."""

    def messages(text: str, *overrides: str, base: str = BASE) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            extended(text, *overrides, base=base)
        return [message.replace(f"{tmp_path}/", "") for message in caught.value.messages]

    return messages


def test_mappings_are_merged_and_lists_replaced(extended):
    config = extended(
        "environment: {num_envs: 8, wrappers: []}\nppo: {num_steps: 50}\nnn: {vector: {hidden_sizes: [5]}}\n"
    )
    assert (config.environment.id, config.environment.num_envs, config.environment.wrappers) == ("CartPole-v1", 8, ())
    assert (config.ppo.num_steps, config.ppo.entropy_coef) == (50, 0.02)
    assert (config.nn.vector.kind, config.nn.vector.hidden_sizes) == ("mlp", (5,))


def test_a_block_of_the_same_kind_is_merged_and_one_of_another_kind_replaced(extended):
    same = extended("optimizer: {kind: adam, eps: 1e-7}\n").optimizer
    assert (same.learning_rate, same.eps) == (1e-3, 1e-7)
    other = extended("optimizer: {kind: sgd}\n").optimizer
    assert (other.kind, other.learning_rate) == ("sgd", 1e-2)
    schedule = extended("ppo: {entropy_coef: {kind: linear, knots: [[0, 1], [9, 0]]}}\n").ppo.entropy_coef
    assert schedule.kind == "linear"


def test_another_algorithm_does_not_inherit_the_blocks_of_the_first_one(extended):
    config = extended("algorithm: grpo\ngrpo: {group_size: 6}\n")
    assert (config.algorithm, config.grpo.group_size, config.environment.num_envs) == ("grpo", 6, 4)


def test_null_takes_a_block_away(extended):
    base = BASE.replace("entropy_coef: 0.02", "target_kl: 0.1")
    assert extended("", base=base).ppo.target_kl == 0.1
    assert extended("ppo: {target_kl: null}\n", base=base).ppo.target_kl is None


def test_the_name_of_the_run_is_that_of_its_own_file(extended):
    assert extended("").name == "own"
    assert extended("name: mine\n").name == "mine"


def test_the_resolved_file_stands_alone(extended, write):
    config = extended("ppo: {num_steps: 50}\n")
    text = dump_config(config)
    assert "extends" not in text
    assert load_config(write(text, "elsewhere/again.yaml")) == config


def test_overrides_go_before_both_files(extended):
    assert extended("ppo: {num_steps: 50}\n", "ppo.num_steps=25").ppo.num_steps == 25


def test_a_file_may_extend_one_that_extends_another(write):
    write(BASE, "a/base.yaml")
    write("extends: ../a/base.yaml\nseed: 5\nppo: {num_steps: 50}\n", "b/middle.yaml")
    config = load_config(write("extends: b/middle.yaml\nppo: {num_minibatches: 2}\n", "own.yaml"))
    assert (config.seed, config.ppo.num_steps, config.ppo.num_minibatches) == (5, 50, 2)


def test_switches_of_btr_fill_what_both_files_leave_open(extended):
    base = BASE.replace(
        "algorithm: ppo\nppo: {num_steps: 100, num_minibatches: 4, entropy_coef: 0.02}", "algorithm: iqn"
    )
    base += "btr: all\nreplay: {warmup_steps: 500}\n"
    config = extended("btr: {munchausen: {alpha: 0.5}}\n", base=base)
    assert (config.iqn.munchausen.alpha, config.nn.heads.noisy) == (0.5, False)


def test_each_problem_stands_at_the_file_and_line_of_its_key(messages):
    text = "environment:\n  num_envs: 0\nppo: {num_step: 1}\n"
    base = BASE.replace("entropy_coef: 0.02", "entropy_coef: -1") + "seed: x\n"
    assert [message.partition(": expected")[0] for message in messages(text, base=base)] == [
        "own.yaml:3: environment.num_envs",
        "own.yaml:4: ppo.num_step: unknown key; did you mean num_steps?",
        "bases/base.yaml:10: ppo.entropy_coef",
        "bases/base.yaml:12: seed",
    ]


def test_a_key_that_stands_twice_is_named_with_its_file(messages):
    assert messages("", base=BASE + "seed: 1\nseed: 2\n") == [
        "bases/base.yaml:13: seed: the key is repeated, first in line 12; remove one"
    ]


def test_a_replaced_block_has_no_places_of_the_base(messages):
    [message] = messages("optimizer: {kind: sgd, learning_rate: 7000}\n")
    assert message.startswith("own.yaml:2: optimizer.learning_rate: expected")


def test_modules_are_sought_beside_both_files(extended, tmp_path):
    base = BASE.replace("CartPole-v1", "some_module:Task-v1")
    places = extended("", base=base).environment.module_path
    assert places[:2] == (str(tmp_path), str(tmp_path / "bases"))


def test_a_file_that_is_not_there_is_named(write, errors_in):
    assert errors_in("seed: 1\nextends: no.yaml\n") == [
        "x.yaml:2: extends: there is no file no.yaml; the name is relative to the file that extends it"
    ]


@pytest.mark.parametrize(("name", "shown"), [("[a.yaml]", '["a.yaml"]'), ("7", "7"), ('""', '""')])
def test_what_is_no_name_of_a_file_is_refused(errors_in, name, shown):
    assert errors_in(f"extends: {name}\n") == [f"x.yaml:1: extends: expected the name of a file, got {shown}"]


def test_files_that_extend_each_other_are_refused(write, tmp_path):
    first = write("extends: b.yaml\n", "a.yaml")
    write("extends: c.yaml\n", "b.yaml")
    write("seed: 1\nextends: b.yaml\n", "c.yaml")
    with pytest.raises(ConfigError) as caught:
        load_config(first)
    assert str(caught.value).replace(f"{tmp_path}/", "") == (
        "c.yaml:2: extends: files extend each other in a circle (b.yaml -> c.yaml -> b.yaml); remove one of these keys"
    )


def test_an_override_cannot_extend(errors_of):
    assert errors_of("extends=base.yaml") == [
        "--set extends: extends: is read from files alone; write it at the top level of a file and load that"
    ]
