import pytest

from tesserl_configs import value_at

WRAPPED = "  wrappers: []\n"


def test_an_override_changes_a_value_that_the_file_has(load):
    assert load("", "replay.warmup_steps=200").replay.warmup_steps == 200


def test_later_overrides_win(load):
    assert load("", "seed=2", "seed=3").seed == 3


def test_an_override_of_a_block_that_the_file_lacks_changes_the_default(load):
    config = load("", "iqn.target_update.rate=0.5", "optimizer.learning_rate=1e-3")
    assert (config.iqn.target_update.kind, config.iqn.target_update.rate) == ("soft", 0.5)
    assert (config.optimizer.kind, config.optimizer.learning_rate) == ("adam", 1e-3)


def test_an_override_of_an_entry_of_a_default_list_changes_that_entry(load):
    assert load("", "optimizer.betas.0=0.8").optimizer.betas == (0.8, 0.999)


def test_an_override_reaches_into_a_default_schedule(load):
    epsilon = load("", "iqn.exploration.epsilon.knots.1.1=0.5").iqn.exploration.epsilon
    assert value_at(epsilon, 250_000) == 0.5
    assert value_at(epsilon, 0) == 1.0


def test_an_override_reaches_into_lists(load):
    wrappers = "environment.wrappers=[{kind: frame_skip, num_frames: 2}, {kind: reward_scale, scale: 1}]"
    config = load("", wrappers, "environment.wrappers.1.scale=0.1")
    assert config.environment.wrappers[1].scale == 0.1


def test_the_value_is_yaml_and_may_contain_equals_signs(load):
    config = load("", "environment.kwargs={a: [1, x=y]}", "environment.kwargs.b=c=d")
    assert config.environment.kwargs == {"a": [1, "x=y"], "b": "c=d"}


def test_an_empty_value_is_null(load):
    assert load("", "iqn.max_grad_norm=").iqn.max_grad_norm is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "--set seed: expected KEY=VALUE with a dotted key, such as iqn.num_taus=16"),
        ("=3", "--set =3: expected KEY=VALUE with a dotted key, such as iqn.num_taus=16"),
        ("iqn..discount=3", "--set iqn..discount=3: expected KEY=VALUE with a dotted key, such as iqn.num_taus=16"),
        ("seed=[1", "--set seed=[1: not valid YAML, line 1, column 3: while parsing a flow sequence; "
         "expected ',' or ']', but got '<stream end>'"),
        ("iqn={discount: 1, discount: 0}", "--set iqn={discount: 1, discount: 0}: discount: the key is repeated, "
         "first in line 1; remove one"),
        ("total_steps.x=1", "--set total_steps.x=1: total_steps is 1000, which has no keys; set total_steps itself"),
        ("total_steps.x.y=1", "--set total_steps.x.y=1: total_steps is 1000, which has no keys; "
         "set total_steps itself"),
        ("environment.wrappers.0.scale=1", "--set environment.wrappers.0.scale=1: environment.wrappers has no entries, "
         "got 0; set the whole list to add one"),
        ("optimizer.betas.2=1", "--set optimizer.betas.2=1: optimizer.betas has entries 0 to 1, got 2; "
         "set the whole list to add one"),
        ("optimizer.betas.x=1", "--set optimizer.betas.x=1: optimizer.betas has entries 0 to 1, got x; "
         "set the whole list to add one"),
    ],
)  # fmt: skip
def test_an_override_that_fits_nowhere_says_why(errors_of, override, message):
    assert errors_of(override) == [message]


def test_an_error_that_an_override_caused_names_it_and_not_the_line(errors_in, errors_of):
    assert errors_of("replay.warmup_steps=-5")[0].startswith("--set replay.warmup_steps: replay.warmup_steps: ")
    assert errors_of("replay={kind: uniform, capacity: -5}")[0].startswith("--set replay: replay.capacity: ")


def test_all_bad_overrides_are_reported_with_the_errors_of_the_file(errors_in):
    text = "total_steps: 100\nenvironment: {id: x}\nnn: {vector: {kind: mlp}}\nalgorithm: iqn\nseed: -1\n"
    assert len(errors_in(text, "a", "b.c", "iqn.kappa=-1")) == 4
