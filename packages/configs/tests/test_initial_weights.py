"""``initial_weights:``, a run or parts of it."""

import pytest

from tesserl_configs import dump_config, load_config
from tesserl_configs.initial_weights import weights_source

FILE = """\
total_steps: 10_000
environment: {id: MinAtar/Breakout-v1}
nn: {vision: {kind: cnn, channels: [16], kernel_sizes: [3], strides: [1]}}
algorithm: ppo
"""


def test_parts_of_a_run_survive_being_dumped(write):
    text = FILE + "initial_weights: {from: /runs/other, parts: [vision, value]}\n"
    config = load_config(write(text))
    assert weights_source(config.initial_weights) == ("/runs/other", ("vision", "value"))
    assert load_config(write(dump_config(config))) == config


def test_a_path_stands_for_the_whole_network(write):
    assert weights_source(load_config(write(FILE + "initial_weights: /runs/other\n")).initial_weights) == (
        "/runs/other",
        (),
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "{from: x, parts: [trunk]}",
            "initial_weights.parts.0: this network has no part trunk; parts: vision, heads, ",
        ),
        ("{from: x, parts: [eyes]}", "initial_weights.parts.0: expected one of body, vision, "),
        ("{from: x, parts: []}", "initial_weights.parts: "),
        ("{parts: [vision]}", "initial_weights.from: missing"),
        ("{from: x}", "initial_weights.parts: missing"),
        ("{from: x, part: [vision]}", "initial_weights.part: unknown key; did you mean parts?"),
        ("{from: x, parts: [vision, embedding]}", "initial_weights.parts.1: this network has no part embedding; "),
    ],
)
def test_wrong_parts_are_named(errors_in, value, message):
    found = errors_in(FILE, f"initial_weights={value}")
    assert any(message in line for line in found), found
