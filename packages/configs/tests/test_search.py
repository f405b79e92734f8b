"""Searches: what a space stands for, and where its mistakes are said to be."""

from pathlib import Path

import pytest

from tesserl_configs import ConfigError
from tesserl_configs.schema import RunConfig
from tesserl_configs.search import NOT_SEARCHED, REFUSED, load_search

SEARCH = """\
config: base.yaml
set: {iqn.discount: 0.9}
space:
  optimizer.learning_rate: {low: 1.0e-5, high: 1, log: true}
  iqn.num_taus: {low: 2, high: 8.0}
  iqn.discount: {low: 0, high: 1}
  nn.vector.hidden_sizes: [[8], [16, 16]]
trials: 4
seeds: [7, 8]
"""


@pytest.fixture
def file(write):
    """The file that the search starts from; returns what writes the search."""
    write(name="base.yaml")
    return lambda text=SEARCH: write(text, "try.yaml")


def refused(path: Path, *overrides: str, **options) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_search(path, overrides, **options)
    return [message.replace(f"{path.parent}/", "") for message in caught.value.messages]


def test_a_trial_is_the_base_with_the_values_of_the_space(file):
    search = load_search(file(), ["total_steps=2_000"], trials=9)
    assert (search.name, search.config.trials, search.whole) == ("try", 9, {"iqn.num_taus"})
    trial = search.trial({"iqn.num_taus": 3, "iqn.discount": 0.25, "nn.vector.hidden_sizes": [16, 16]}, "trial-0001")
    assert (trial.name, trial.seed, trial.total_steps) == ("try-trial-0001", 7, 2_000)
    assert (trial.iqn.num_taus, trial.iqn.discount, trial.nn.vector.hidden_sizes) == (3, 0.25, (16, 16))
    assert len(list(search.corners())) == 16
    assert next(search.corners()) == {
        "optimizer.learning_rate": 1e-5,
        "iqn.num_taus": 2,
        "iqn.discount": 0.0,
        "nn.vector.hidden_sizes": [8],
    }


def test_the_values_of_the_base_are_known_if_the_space_holds_them(file):
    text = SEARCH.replace("[[8], [16, 16]]", "[[8], [256, 256]]")
    base = load_search(file(text), ["iqn.num_taus=4", "nn.vector.hidden_sizes=[8]"]).base()
    assert (base["iqn.num_taus"], base["iqn.discount"], base["nn.vector.hidden_sizes"]) == (4, 0.9, [8])
    assert load_search(file(text), ["iqn.num_taus=9", "nn.vector.hidden_sizes=[8]"]).base() == {}
    assert load_search(file(text), ["iqn.num_taus=4", "nn.vector.hidden_sizes=[9]"]).base() == {}


MISTAKES = {
    "low: 2, high: 8.0": ("low: 8, high: 2", "try.yaml:5: space.iqn.num_taus: expected low < high, got 8 and 2"),
    "low: 1.0e-5, high: 1": (
        "low: 0, high: 1",
        "try.yaml:4: space.optimizer.learning_rate: expected low > 0 with log, got 0",
    ),
    "{low: 2, high: 8.0}": (
        "5",
        "try.yaml:5: space.iqn.num_taus: expected {low, high, log} or a list of choices, got 5",
    ),
    "[[8], [16, 16]]": ("[[8]]", "try.yaml:7: space.nn.vector.hidden_sizes: expected at least 2 entries, got [[8]]"),
    "iqn.num_taus": ("iqn.num_tau", "try.yaml:5: space: iqn.num_tau: unknown key; did you mean num_taus?"),
    "high: 8.0": ("high: 8.5", "try.yaml:5: space.iqn.num_taus.high: expected a whole number, got 8.5"),
    "high: 1}": ("high: 2}", "try.yaml:6: space: iqn.discount: expected a value <= 1, got 2.0; "),
    "[16, 16]": ("[0]", "try.yaml:7: space: nn.vector.hidden_sizes.0: expected a value >= 1, got 0; "),
    "{iqn.discount: 0.9}": ("{iqn.dicount: 0.9}", "try.yaml:2: set: iqn.dicount: unknown key; did you mean discount?"),
    "base.yaml": (
        "bas.yaml",
        "try.yaml:1: config: there is no file bas.yaml; paths are relative to the file of the se",
    ),
    "seeds: [7, 8]": ("objective: best", 'try.yaml:9: objective: expected one of final, mean, got "best"'),
    "[7, 8]": ("[7, 7]", "try.yaml:9: seeds: a seed is repeated; write each one once"),
    "trials: 4": ("trials: 0", "try.yaml:8: trials: expected a value >= 1, got 0; total number of trials, >= 1"),
    "iqn.discount: {": (
        "seed: {",
        "try.yaml:6: space.seed: every trial has the same ones; set them with seeds",
    ),
    "iqn.discount: 0.9": ("name: x", "try.yaml:2: set: name: every trial has its own; set it with name of the search"),
    "[8], [16, 16]": (
        "[8], [8]",
        "try.yaml:7: space.nn.vector.hidden_sizes: a choice is repeated; write each one once",
    ),
    "nn.vector.hidden_sizes: [[8], [16, 16]]": (
        "total_steps: [100, 200]",
        "try.yaml:7: space.total_steps: trials are judged by it, so it must be the same in all of them",
    ),
}


@pytest.mark.parametrize(("old", "new", "message"), [(old, *rest) for old, rest in MISTAKES.items()], ids=MISTAKES)
def test_a_mistake_is_placed_before_anything_starts(file, old, new, message):
    assert old in SEARCH
    assert refused(file(SEARCH.replace(old, new)))[0].startswith(message)


def test_a_rule_that_one_corner_breaks_names_the_corner(file):
    text = SEARCH.replace("iqn.num_taus: {low: 2, high: 8.0}", "replay.capacity: [50_000, 50]")
    [message] = refused(file(text))
    assert "(corner optimizer.learning_rate=1e-05, replay.capacity=50, iqn.discount=0.0, nn.vector" in message
    assert message.endswith(", and 7 more)")


def test_a_space_with_too_many_corners_is_refused(file):
    choices = ", ".join(str(number) for number in range(1, 66))
    [message] = refused(
        file(SEARCH.replace("{low: 2, high: 8.0}", f"[{choices}]").replace("[16, 16]", "[16], [9], [7]"))
    )
    assert message.startswith("try.yaml:4: space: expected at most 1,024 corners")
    assert message.endswith("got 1,040; search fewer keys at once")


def test_ends_that_differ_between_trials_have_no_means_to_compare(file):
    text = SEARCH.replace("set: {", "objective: mean\nset: {early_stopping: {return: 475}, ")
    assert refused(file(text))[0].startswith("early_stopping: ends trials at different steps")
    load_search(file(text.replace("objective: mean\n", "")))


def test_the_keys_that_a_search_sets_are_keys_of_a_run():
    assert {*REFUSED, *NOT_SEARCHED} <= RunConfig.model_fields.keys()
