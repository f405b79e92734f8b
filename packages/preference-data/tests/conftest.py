"""Fixtures of several test files: trajectories, pairs, a store."""

import pytest
import torch
from tensordict import TensorDict

from tesserl_preference_data import cut_segments, make_pairs, save_pairs

FEATURES, ACTIONS = 5, 3


@pytest.fixture
def make_batch():
    """Build a batch of pairs whose two sides are padded to lengths of their own; ``filling`` is what padding holds."""

    def side(num, length, filling):
        mask = torch.arange(length) < torch.randint(1, length + 1, (num,)).unsqueeze(1)
        observation = torch.randn(num, length, FEATURES)
        if filling is not None:
            observation[~mask] = filling
        entries = {"observation": observation, "action": torch.randint(ACTIONS, (num, length)), "mask": mask}
        others = {"reference_log_prob": -torch.rand(num, length), "value_target": torch.randn(num, length, 1)}
        return TensorDict({**entries, **others}, [num, length])

    def build(num=7, lengths=(9, 9), filling=None):
        torch.manual_seed(3)
        sides = [side(num, length, filling) for length in lengths]
        return TensorDict({"chosen": sides[0], "rejected": sides[1]}, [num])

    return build


@pytest.fixture
def make_trajectories():
    """Build trajectories of random length, whose reward tells what the action was worth."""

    def build(num, shortest=10, longest=40, seed=1):
        generator = torch.Generator().manual_seed(seed)
        rows = []
        for _ in range(num):
            length = int(torch.randint(shortest, longest + 1, (), generator=generator))
            observation = torch.randn(length, FEATURES, generator=generator)
            action = torch.randint(ACTIONS, (length,), generator=generator)
            following = {"reward": torch.rand(length, 1, generator=generator) + action.unsqueeze(-1)}
            rows.append(TensorDict({"observation": observation, "action": action, "next": following}, [length]))
        return rows

    return build


@pytest.fixture
def pairs(make_trajectories):
    """Pairs of segments of unequal length, one of them a tie."""
    pool = cut_segments(
        make_trajectories(30), segment_length=(3, 9), value_discount=0.9, generator=torch.Generator().manual_seed(0)
    )
    made = make_pairs(pool, num_pairs=20, generator=torch.Generator().manual_seed(0))
    return made.relabel(torch.tensor([0.5] + [0.0] * 19), source="score")


@pytest.fixture
def store(pairs, tmp_path):
    """A store of twenty pairs."""
    return save_pairs(pairs, tmp_path / "pairs")
