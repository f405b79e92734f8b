"""``environment:``, its wrappers and Atari's own vector environment."""

import pytest
import yaml

from tesserl_configs import dump_config, load_config

PONG = """\
total_steps: 100_000
environment: {id: ALE/Pong-v5, num_envs: 8, vectorization: atari}
nn: {vision: {kind: cnn}}
algorithm: ppo
"""
CARS = """\
total_steps: 100_000
environment:
  id: CarRacing-v3
  vectorization: async
  wrappers:
    - {kind: frame_skip, num_frames: 4, max_last_two: true}
    - {kind: telemetry}
    - {kind: crop, bottom: 12}
    - {kind: grayscale}
    - {kind: resize, height: 64, width: 48}
    - {kind: frame_stack, num_frames: 4}
nn: {vision: {kind: cnn}, vector: {kind: mlp}}
algorithm: ppo
"""


def test_the_defaults_of_atari_are_those_of_its_environment(write):
    atari = load_config(write(PONG)).environment.atari
    assert (atari.frameskip, atari.stack_num, atari.img_height, atari.img_width) == (4, 4, 84, 84)
    assert (atari.repeat_action_probability, atari.reward_clipping, atari.episodic_life) == (0.0, True, False)
    assert (atari.noop_max, atari.max_num_frames_per_episode, atari.num_threads) == (30, 108_000, 0)


def test_the_options_of_atari_are_printed_where_they_are_used(write):
    config = load_config(write(PONG), ["environment.atari={repeat_action_probability: 0.25, episodic_life: true}"])
    data = yaml.safe_load(dump_config(config))["environment"]
    assert (data["atari"]["repeat_action_probability"], data["atari"]["episodic_life"]) == (0.25, True)
    assert load_config(write(dump_config(config), "again.yaml")) == config
    assert "atari" not in yaml.safe_load(dump_config(load_config(write(CARS))))["environment"]


def test_the_options_of_atari_belong_to_its_vectorization(errors_in):
    text = CARS.replace("  wrappers:", "  atari: {frameskip: 2}\n  wrappers:")
    assert errors_in(text) == ["x.yaml:5: environment.atari: belongs to vectorization atari or envpool, got async; "
                               "remove the block"]  # fmt: skip


def test_envpool_has_the_options_of_atari_for_games_of_ale(write, errors_in):
    text = PONG.replace("vectorization: atari", "vectorization: envpool, atari: {stack_num: 2}")
    config = load_config(write(text))
    assert config.environment.has_atari
    assert yaml.safe_load(dump_config(config))["environment"]["atari"]["stack_num"] == 2
    assert load_config(write(dump_config(config), "again.yaml")) == config
    [message] = errors_in(text.replace("ALE/Pong-v5", "Ant-v5"))
    assert message == ("x.yaml:2: environment.atari: is for games of ALE, got Ant-v5; "
                       "write its options in environment.kwargs")  # fmt: skip


def test_other_tasks_of_envpool_have_arguments(write):
    text = PONG.replace("ALE/Pong-v5", "Ant-v5").replace("atari}", "envpool, kwargs: {num_threads: 3}}")
    config = load_config(write(text.replace("{vision: {kind: cnn}}", "{vector: {kind: mlp}}")))
    assert not config.environment.has_atari
    assert "atari" not in yaml.safe_load(dump_config(config))["environment"]
    assert load_config(write(dump_config(config), "again.yaml")) == config


def test_wrappers_of_images_survive_the_round_trip(write):
    config = load_config(write(CARS))
    assert [wrapper.kind for wrapper in config.environment.wrappers] == [
        "frame_skip", "telemetry", "crop", "grayscale", "resize", "frame_stack"
    ]  # fmt: skip
    assert config.environment.wrappers[2].top == 0
    assert load_config(write(dump_config(config), "again.yaml")) == config


def test_no_maximum_unless_asked_for(write):
    config = load_config(write(CARS), ["environment.wrappers.0={kind: frame_skip, num_frames: 2}"])
    assert config.environment.wrappers[0].max_last_two is False


@pytest.mark.parametrize(
    "override",
    [
        "frameskip=0",
        "img_height=0",
        "img_width=0",
        "stack_num=0",
        "repeat_action_probability=1.5",
        "noop_max=-1",
        "continuous_action_threshold=2",
        "max_num_frames_per_episode=0",
        "num_threads=-1",
        "thread_affinity_offset=-2",
    ],
)
def test_an_option_of_atari_out_of_range_is_refused(errors_in, override):
    [message] = errors_in(PONG, f"environment.atari.{override}")
    assert ": expected a value " in message


@pytest.mark.parametrize("override", ["2={kind: crop, left: -1}", "4={kind: resize, height: 0, width: 5}"])
def test_a_wrapper_out_of_range_is_refused(errors_in, override):
    [message] = errors_in(CARS, f"environment.wrappers.{override}")
    assert ": expected a value " in message


def test_a_size_has_two_sides(errors_in):
    [message] = errors_in(CARS, "environment.wrappers.4={kind: resize, height: 5}")
    assert message.endswith(
        "environment.wrappers.4.width: missing; width of the scaled images, in pixels, >= 1 (Atari: 84)"
    )
