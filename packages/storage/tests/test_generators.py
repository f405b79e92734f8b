"""Random generators continue where they were."""

import json
import random

import numpy as np
import torch

from tesserl_storage import generators_state, join_state, seed_generators, set_generators_state, split_state


def test_all_generators_continue_where_they_were():
    def draw():
        legacy = np.random.standard_normal(3).tolist()  # noqa: NPY002
        return random.random(), random.gauss(0, 1), legacy, torch.randn(3).tolist()

    seed_generators(5)
    draw()
    document, tensors = split_state(generators_state())
    saved = join_state(json.loads(json.dumps(document)), tensors)
    expected = draw()
    draw()
    set_generators_state(saved)
    assert draw() == expected
