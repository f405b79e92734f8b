"""The pace of the off-policy loop."""

from tesserl_training.loops.off_policy import Pace


def test_the_ratio_says_how_often_a_transition_is_drawn():
    pace, owed, drawn = Pace(1, 0, None, 32, ratio=4.0), 0.0, 0
    for _ in range(100):
        number, owed = pace.updates(owed, 5, 3)  # two of five steps were no transitions to learn from
        drawn += 32 * number
    assert drawn + owed == 4.0 * 300
    assert owed < 32
    assert Pace(1, 0, 4, 32).updates(3, 5, 0) == (2, 0)
