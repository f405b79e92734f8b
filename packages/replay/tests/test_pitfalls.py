"""Mistakes of published code of Beyond The Rainbow (Clark et al. 2024) that concern replay, each with a test."""

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer

from tesserl_replay import FrameStorage, NStepWindow, PrioritizedSampler, SumTree, n_step_returns


def rollout(terminated, truncated, *, reward=1.0):
    """One environment; the observation is the step, that which follows is 100 more at the end of an episode."""
    terminated, truncated = torch.tensor([terminated]).unsqueeze(-1), torch.tensor([truncated]).unsqueeze(-1)
    length = terminated.shape[1]
    step = torch.arange(float(length)).reshape(1, -1, 1)
    done = terminated | truncated
    return TensorDict(
        {
            "observation": step,
            "action": torch.zeros(1, length, dtype=torch.int64),
            "next": {
                "observation": step + 1 + 100 * done,
                "reward": torch.full((1, length, 1), reward),
                "terminated": terminated,
                "truncated": truncated,
                "done": done,
            },
        },
        [1, length],
    )


@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_pitfall_01_a_window_that_an_episode_cuts_short_keeps_its_exact_discount(end):
    """There a window of m < n steps is padded with zeros, and its value still discounted by gamma^n."""
    ends, none = [False, False, True, False, False, False], [False] * 6
    flags = (ends, none) if end == "terminated" else (none, ends)
    out = NStepWindow(3, 0.9).extend(rollout(*flags))
    assert out["steps_to_next_obs"].flatten().tolist() == [3, 2, 1, 3]
    torch.testing.assert_close(out["next", "reward"].flatten(), torch.tensor([2.71, 1.9, 1.0, 2.71]))
    _, discount, _ = n_step_returns(torch.ones(6), *map(torch.tensor, flags), num_steps=3, discount=0.9)
    expected = [0.0, 0.0, 0.0] if end == "terminated" else [0.729, 0.81, 0.9]
    torch.testing.assert_close(discount[:3], torch.tensor(expected))


def test_pitfall_02_a_truncated_episode_is_bootstrapped_from_its_own_last_observation():
    """There truncation counts as the end of all rewards."""
    none = [False] * 5
    out = NStepWindow(2, 0.9).extend(rollout(none, [False, True, False, False, False]))
    assert not out["next", "terminated"].any()
    assert out["next", "truncated"].flatten().tolist() == [True, True, False, False]
    assert out["next", "observation"].flatten().tolist() == [102.0, 102.0, 4.0, 5.0]


def test_pitfall_02_termination_and_truncation_stay_apart_in_the_buffer():
    batch = NStepWindow(2, 0.9).extend(rollout([False, False, True, False], [False, True, False, False]))
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(3), sampler=PrioritizedSampler(3))
    buffer.extend(batch)
    assert buffer[:]["next", "terminated"].flatten().tolist() == [False, False, True]
    assert buffer[:]["next", "truncated"].flatten().tolist() == [True, True, False]


def test_pitfall_03_the_first_stack_of_an_episode_holds_nothing_of_the_one_before():
    """There the last observation of an episode stands where the first of the next one belongs."""
    frames = torch.randint(256, (12, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    first, second = torch.stack([frames[i : i + 4] for i in range(3)]), torch.stack([frames[8].expand(4, 5, 7)])
    data = TensorDict(
        {
            "pixels": torch.cat([first[:2], second]),  # steps 0 and 1 end an episode, step 2 begins the next one
            "next": {"pixels": torch.cat([first[1:], frames[[8, 8, 8, 9]].unsqueeze(0)])},
            "action": torch.arange(3),
        },
        [3],
    )
    storage = FrameStorage(3, num_frames=4)
    storage.set(range(3), data)
    assert torch.equal(storage.get(2)["pixels"], frames[8].expand(4, 5, 7))
    assert torch.equal(storage.get(1)["next", "pixels"], frames[2:6])
    assert storage.num_stored == 6 + 2


def test_pitfall_04_weights_are_finite_and_a_priority_that_is_not_is_refused():
    sampler, storage = PrioritizedSampler(4, alpha=0.2, eps=1e-6), LazyTensorStorage(4)
    storage.set(range(4), TensorDict({"reward": torch.zeros(4)}, [4]))
    sampler.update_priority(torch.arange(4), torch.tensor([0.0, 1e-30, 1.0, 1e30]))
    weight = sampler.sample(storage, 256)[1]["priority_weight"]
    assert weight.isfinite().all()
    assert (weight > 0).all()
    for wrong in (torch.nan, torch.inf, -1.0):
        with pytest.raises(ValueError, match="priority must be finite and at least 0"):
            sampler.update_priority(torch.tensor([1]), torch.tensor([wrong]))


def test_pitfall_06_one_tree_draws_every_batch_from_all_environments():
    """There each environment has a tree of its own, and a batch comes from one of them."""
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(4_000), sampler=PrioritizedSampler(4_000))
    buffer.extend(TensorDict({"environment": torch.arange(4_000) % 8}, [4_000]))
    counts = buffer.sample(256)["environment"].bincount(minlength=8)
    assert counts.min() > 8  # 32 are expected of each


def test_pitfall_06_sums_do_not_drift():
    """There sums are of single precision and adjusted by differences."""
    tree, generator = SumTree(1_000), torch.Generator().manual_seed(0)
    for scale in (1e-8, 1e8, 1e-4):
        for _ in range(50):
            index = torch.randint(1_000, (400,), generator=generator)
            tree.update(index, torch.rand(400, generator=generator, dtype=torch.float64) * scale)
    assert float(tree.total) == pytest.approx(float(tree.priorities.sum()), rel=1e-14)


def test_pitfall_06_priorities_of_very_different_size_keep_exact_sums_and_are_all_drawn():
    tree, generator = SumTree(1000), torch.Generator().manual_seed(1)
    for _ in range(500):
        index = torch.randint(1000, (64,), generator=generator)
        tree.update(index, torch.rand(64, generator=generator, dtype=torch.float64) ** 12)
    assert tree.priorities.dtype == torch.float64
    torch.testing.assert_close(tree.total, tree.priorities.sum(), rtol=1e-12, atol=0)
    assert tree.sample(1000, generator=generator)[0].unique().numel() > 50


@pytest.mark.parametrize("size", [(75, 140), (140, 75)])
def test_pitfall_09_images_that_are_not_square_keep_their_orientation(size):
    """There height and width are mistaken for each other, which 84 x 84 pixels do not show."""
    pixels = torch.randint(256, (5, 4, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    storage = FrameStorage(5, num_frames=4)
    data = TensorDict({"pixels": pixels, "next": {"pixels": pixels.flip(0)}, "action": torch.arange(5)}, [5])
    storage.set(range(5), data)
    assert torch.equal(storage.get(torch.tensor([3, 1]))["pixels"], pixels[[3, 1]])
    assert torch.equal(storage.get(0)["next", "pixels"], pixels[4])
