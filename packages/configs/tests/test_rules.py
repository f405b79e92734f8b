"""Each rule: what breaks it, the message, and the nearest configuration that does not break it."""

import pytest

CNN = "nn.vision={kind: cnn}"

BROKEN = {
    "stacked_frames_are_seen": (
        ["environment.wrappers=[{kind: time_limit, max_episode_steps: 9}, {kind: frame_stack, num_frames: 4}]"],
        "--set environment.wrappers: environment.wrappers.1: frame_stack stacks images and nn.vision has kind none; "
        "choose an encoder there or remove the wrapper",
    ),
    "clipped_rewards_have_a_range": (
        ["environment.wrappers=[{kind: reward_clip, low: 1, high: 1}]"],
        "--set environment.wrappers: environment.wrappers.0.low: expected less than high = 1, got 1",
    ),
    "wrappers_wrap_single_environments": (
        ["environment.vectorization=vector_entry_point", "environment.wrappers=[{kind: reward_scale, scale: 0.1}]"],
        "--set environment.wrappers: environment.wrappers: wrap single environments, vectorization vector_entry_point "
        "has none; remove them or choose vectorization sync",
    ),
    "antithetic num_taus": (
        ["iqn.tau_sampling=antithetic", "iqn.num_taus=7"],
        "--set iqn.num_taus: iqn.num_taus: expected an even number, as tau_sampling is antithetic, got 7; "
        "or use stratified",
    ),
    "antithetic num_target_taus": (
        ["iqn.tau_sampling=antithetic", "iqn.num_target_taus=9"],
        "--set iqn.num_target_taus: iqn.num_target_taus: expected an even number, as tau_sampling is antithetic, "
        "got 9; or use stratified",
    ),
    "noisy_exploration_has_noise": (
        ["iqn.exploration={kind: noisy}"],
        "--set iqn.exploration: iqn.exploration.kind: noisy explores by the noise of the heads; "
        "set nn.heads.noisy: true or use epsilon",
    ),
    "warm-up and total steps": (
        ["total_steps=99"],
        "x.yaml:6: replay.warmup_steps: expected at most total_steps = 99, got 100",
    ),
    "warm-up and capacity": (
        ["replay.capacity=99"],
        "x.yaml:6: replay.warmup_steps: expected at most replay.capacity = 99, got 100",
    ),
    "warm-up and batch size": (
        ["iqn.batch_size=101"],
        "x.yaml:6: replay.warmup_steps: expected at least 101, got 100: the first update needs iqn.batch_size = 101 "
        "finished transitions",
    ),
    "warm-up and open steps": (  # 32 + (10 - 1) * 8 = 104
        ["iqn.num_steps=10"],
        "x.yaml:6: replay.warmup_steps: expected at least 104, got 100: the first update needs iqn.batch_size = 32 "
        "finished transitions, 72 steps are still open then (num_steps - 1 in each environment)",
    ),
}


@pytest.mark.parametrize(("overrides", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_rule_says_where_and_what(errors_of, overrides, message):
    assert errors_of(*overrides) == [message]


def test_a_batch_larger_than_the_buffer_is_named_beside_the_warm_up(errors_of):
    messages = errors_of("iqn.batch_size=150", "replay.capacity=149")
    assert "--set iqn.batch_size: iqn.batch_size: expected at most replay.capacity = 149, got 150" in messages
    assert len(messages) == 2


@pytest.mark.parametrize(
    "overrides",
    [
        ["environment.wrappers=[{kind: frame_stack, num_frames: 4}]", CNN],
        ["environment.wrappers=[{kind: reward_clip, low: 0, high: 1}]"],
        ["environment.vectorization=vector_entry_point"],
        ["iqn.tau_sampling=antithetic", "iqn.num_taus=6"],
        ["iqn.tau_sampling=stratified", "iqn.num_taus=7"],
        ["iqn.exploration={kind: noisy}", "nn.heads.noisy=true"],
        ["total_steps=100", "replay.capacity=100", "iqn.batch_size=100"],
        ["iqn.num_steps=9", "iqn.batch_size=36"],  # 36 + 8 * 8 = 100
    ],
    ids=lambda overrides: overrides[0],
)
def test_what_just_keeps_the_rules_loads(load, overrides):
    load("", *overrides)


def test_all_broken_rules_are_reported_together(errors_of):
    messages = errors_of("nn.freeze=[vision]", "iqn.exploration={kind: noisy}", "iqn.batch_size=500")
    assert len(messages) == 3


def test_rules_hold_for_configurations_made_in_python(load):
    from tesserl_configs import RunConfig

    data = load().model_dump()
    data["iqn"]["exploration"] = {"kind": "noisy"}
    with pytest.raises(ValueError, match=r"set nn\.heads\.noisy: true or use epsilon"):
        RunConfig.model_validate(data)
