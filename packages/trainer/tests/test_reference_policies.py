"""The reference policy stands in two packages that may not import each other."""

import inspect

import tesserl_grpo.reference
import tesserl_preference_opt.reference


def test_both_packages_have_the_same_reference_policy():
    left, right = (inspect.getsource(module.reference) for module in (tesserl_grpo, tesserl_preference_opt))
    assert left == right
