"""The scripted teacher against reference numbers, and its behaviours one by one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tesserl_preference_data import ScriptedTeacher

VECTORS = json.loads((Path(__file__).parent / "vectors" / "bpref_teacher.json").read_text())
REWARDS = [torch.tensor(VECTORS[name], dtype=torch.float64) for name in ("reward_1", "reward_2")]
MANY = 4000


def raw(**options):
    """A teacher whose thresholds are in reward units, as B-Pref's are."""
    return ScriptedTeacher(bounds=(0.0, 1.0), **options)


def coin(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: f"gamma{case['gamma']}-beta{case['beta']}")
def test_sums_probabilities_and_labels_match_the_reference(case):
    options = {"discount": case["gamma"], "skip": case["thr_skip"], "equal": case["thr_equal"]}
    expected = case["out"]
    noisy = raw(beta=case["beta"] if case["beta"] > 0 else None, **options).label(*REWARDS, generator=coin())
    torch.testing.assert_close(
        noisy.probability, torch.tensor([each["p_prefer_2"] for each in expected], dtype=torch.float64)
    )
    assert noisy.kept.tolist() == [not each["skipped"] for each in expected]
    certain = raw(**options).label(*REWARDS, generator=coin())
    labels = [0.5 if each["label_if_no_noise"] == -1 else each["label_if_no_noise"] for each in expected]
    assert certain.label.tolist() == labels
    assert certain.probability.tolist() == [each["rational_label"] for each in expected]


def test_a_myopic_teacher_weighs_the_last_step_most():
    early, late = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.85]])
    assert raw().label(early, late).label.item() == 0.0
    assert raw(discount=0.9).label(early, late).label.item() == 1.0  # 0.81 against 0.85


def test_the_last_valid_step_counts_as_last_and_padding_as_nothing():
    reward = torch.tensor([[1.0, 0.0, torch.nan], [0.0, 0.85, torch.nan]])
    mask = torch.tensor([[True, True, False]])
    labels = raw(discount=0.8).label(reward[:1], reward[1:], mask, mask)  # 0.8 against 0.85
    assert labels.label.item() == 1.0


def test_segments_may_differ_in_length():
    assert raw().label(torch.ones(1, 3), torch.ones(1, 5)).label.item() == 1.0


def test_a_noisy_teacher_errs_as_often_as_its_probability_says():
    rewards = torch.zeros(MANY, 1), torch.full((MANY, 1), 0.5)
    labels = raw(beta=2.0).label(*rewards, generator=coin())
    assert labels.probability[0].item() == pytest.approx(0.7311, abs=1e-4)  # sigmoid(2 * 0.5)
    assert labels.label.mean().item() == pytest.approx(0.7311, abs=0.03)


def test_a_mistaken_teacher_flips_its_share_of_labels():
    rewards = torch.zeros(MANY, 1), torch.ones(MANY, 1)
    labels = raw(mistake=0.1).label(*rewards, generator=coin()).label
    assert labels.mean().item() == pytest.approx(0.9, abs=0.02)
    assert raw(mistake=1.0).label(*rewards).label.sum() == 0


def test_a_skipping_teacher_keeps_a_pair_with_one_good_segment():
    first, second = torch.tensor([[0.1], [0.1], [0.3]]), torch.tensor([[0.2], [0.9], [0.05]])
    assert raw(skip=0.25).label(first, second).kept.tolist() == [False, True, True]


def test_equal_sums_are_ties_whatever_the_noise_and_the_mistakes():
    first, second = (
        torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]),
        torch.tensor([[0.0, 1.0], [0.0, 0.93], [0.0, 1.0]]),
    )
    labels = raw(discount=0.5, beta=0.1, mistake=0.5, equal=0.1).label(first, second, generator=coin()).label
    assert labels[:2].tolist() == [0.5, 0.5]
    assert labels[2].item() in (0.0, 1.0)
    assert raw().label(first, second).label.tolist() == [0.5, 0.0, 1.0]  # equal sums are a tie to everybody


@pytest.mark.parametrize("kind", ["oracle", "noisy", "skip", "equal", "mistake"])
def test_shifting_and_scaling_all_sums_changes_no_label(kind):
    rewards = torch.randn(2, 200, 8, generator=coin(1), dtype=torch.float64)
    teacher = ScriptedTeacher.preset(kind)
    plain = teacher.label(*rewards, generator=coin())
    for scale, shift in ((50.0, 0.0), (0.01, -30.0), (1.0, 1000.0)):
        moved = teacher.label(*(scale * each + shift for each in rewards), generator=coin())
        assert torch.equal(moved.label, plain.label)
        assert torch.equal(moved.kept, plain.kept)
    assert (kind == "skip") == bool((~plain.kept).any())
    assert (kind == "equal") == bool((plain.label == 0.5).any())


def test_thresholds_hold_where_all_returns_are_negative():
    rewards = -torch.rand(2, 200, 8, generator=coin(1)) - 5.0
    assert 0.02 < (ScriptedTeacher.preset("equal").label(*rewards, generator=coin()).label == 0.5).float().mean() < 0.5
    kept = ScriptedTeacher(skip=0.5).label(*rewards).kept.float().mean()
    assert 0.5 < kept < 0.95


def test_presets_are_the_behaviours_of_bpref():
    settings = {
        kind: vars(ScriptedTeacher.preset(kind)) for kind in ("oracle", "noisy", "myopic", "skip", "equal", "mistake")
    }
    plain = settings.pop("oracle")
    assert plain == {"beta": None, "discount": 1.0, "skip": None, "equal": 0.0, "mistake": 0.0, "bounds": None}
    changed = {
        kind: {key: value for key, value in own.items() if value != plain[key]} for kind, own in settings.items()
    }
    assert changed == {
        "noisy": {"beta": 10.0},
        "myopic": {"discount": 0.9},
        "skip": {"skip": 0.1},
        "equal": {"equal": 0.1},
        "mistake": {"mistake": 0.1},
    }
    assert ScriptedTeacher.preset("skip", skip=0.4).skip == 0.4


def test_labels_are_reproducible():
    rewards = torch.randn(2, 50, 4)
    teacher = ScriptedTeacher(beta=1.0, mistake=0.3)
    first, second = (teacher.label(*rewards, generator=coin(7)).label for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, teacher.label(*rewards, generator=coin(8)).label)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0.0}, "beta must be above 0, or None for no noise, got 0.0"),
        ({"discount": 1.1}, r"discount must be in \[0, 1\], got 1.1"),
        ({"equal": -0.1}, "equal must be at least 0, got -0.1"),
        ({"mistake": 2.0}, r"mistake must be in \[0, 1\], got 2.0"),
        ({"bounds": (1.0, 1.0)}, r"bounds must be a low end and a higher one, got \(1.0, 1.0\)"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ScriptedTeacher(**options)


def test_wrong_kinds_and_shapes_are_named():
    with pytest.raises(ValueError, match=r"teacher must be one of oracle, noisy, .*, got 'human'"):
        ScriptedTeacher.preset("human")
    with pytest.raises(ValueError, match=r"first and second segments must be equally many, got \(3, 4\), \(2, 4\)"):
        raw().label(torch.zeros(3, 4), torch.zeros(2, 4))


def test_no_pairs_have_no_labels():
    for options in ({}, {"skip": 0.1}, {"equal": 0.1}, {"beta": 10.0}):
        labels = ScriptedTeacher(**options).label(torch.zeros(0, 3), torch.zeros(0, 5))
        assert [len(part) for part in labels] == [0, 0, 0]


@pytest.mark.parametrize("number", [1, 2, 7, 1000, pytest.param(2**23 + 1, marks=pytest.mark.soak)])
def test_the_range_of_scores_is_between_their_quantiles(number):
    generator = torch.Generator().manual_seed(number)
    first, second = (torch.randn(number, 1, generator=generator).double() for _ in range(2))
    expected = np.quantile(torch.cat([first, second]).numpy(), [0.05, 0.95])
    np.testing.assert_allclose(ScriptedTeacher()._range(first[:, 0], second[:, 0]), expected, rtol=1e-6, atol=1e-6)
