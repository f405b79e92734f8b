import math
import random

import pytest
import torch

from tesserl_replay import SumTree

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
CAPACITIES = [1, 2, 63, 64, 65, 1000, 5000]


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


def filled(priorities, device="cpu"):
    tree = SumTree(len(priorities), device=device)
    tree.update(torch.arange(len(priorities)), torch.as_tensor(priorities, dtype=torch.float64))
    return tree


def generator(seed, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_total_and_probabilities_are_those_of_a_plain_list_after_any_updates(capacity, device):
    rng = random.Random(capacity)
    tree, plain = SumTree(capacity, device=device), [0.0] * capacity
    for _ in range(60):
        index = [rng.randrange(capacity) for _ in range(rng.randrange(1, 40))]
        priority = [rng.choice([0.0, 1e-9, rng.random(), 1e6 * rng.random()]) for _ in index]
        tree.update(torch.tensor(index), torch.tensor(priority, dtype=torch.float64))
        for i, value in zip(index, priority, strict=True):  # one after the other: the last one wins
            plain[i] = value
        assert tree.priorities.tolist() == plain
        assert float(tree.total) == pytest.approx(math.fsum(plain), rel=1e-12)
        if sum(plain) > 0:
            items, probability = tree.sample(16, generator=generator(0, device))
            expected = [plain[i] / math.fsum(plain) for i in items.tolist()]
            assert probability.tolist() == pytest.approx(expected, rel=1e-12)
            assert min(expected) > 0


def test_a_million_draws_follow_the_priorities(device):
    priorities = torch.rand(500, generator=generator(1), dtype=torch.float64) ** 3
    priorities[::7] = 0.0
    tree, source = filled(priorities, device), generator(2, device)
    items = torch.cat([tree.sample(1000, generator=source)[0] for _ in range(1000)])
    counts = torch.bincount(items.cpu(), minlength=500).double()
    assert not counts[priorities == 0].any()
    expected = 1_000_000 * priorities / priorities.sum()
    positive = expected > 0
    statistic = float(((counts - expected)[positive] ** 2 / expected[positive]).sum())
    freedom = int(positive.sum()) - 1
    # strata only lower the variance, so that the bound of independent draws holds with room
    assert statistic < freedom + 4 * math.sqrt(2 * freedom)


def test_single_draws_are_independent_of_each_other(device):
    tree, source = filled([1.0, 0.0, 3.0], device), generator(0, device)
    draws = torch.cat([tree.sample(1, generator=source)[0] for _ in range(8000)]).cpu()
    share = (draws == 2).double()
    assert float(share.mean()) == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / 8000))
    assert float((share[1:] * share[:-1]).mean()) == pytest.approx(0.75**2, abs=0.03)


def test_every_draw_comes_from_its_own_part_of_the_total(device):
    priorities = torch.rand(2000, generator=generator(3), dtype=torch.float64)
    items, _ = filled(priorities, device).sample(50, generator=generator(4, device))
    after = priorities.cumsum(0)[items.cpu()]
    before = after - priorities[items.cpu()]
    part = priorities.sum() / 50
    assert bool((after > torch.arange(50) * part).all())
    assert bool((before < torch.arange(1, 51) * part).all())


@pytest.mark.parametrize("capacity", [5, 64, 700])
def test_no_rounding_can_lead_to_an_item_of_priority_zero(capacity, device):
    priorities = torch.rand(capacity, generator=generator(capacity), dtype=torch.float64)
    priorities[priorities < 0.5] = 0.0
    priorities[-3:] = 0.0
    tree = filled(priorities, device)
    edges = torch.cat([torch.zeros(1), priorities.cumsum(0)[:-3]]).double().to(device)
    around = torch.cat([edges, edges.nextafter(edges - 1), edges.nextafter(edges + 1)])
    tree.sample(1)  # fills in the running sums that a search needs
    items, found = tree._find(around[(around >= 0) & (around < tree._running[-1])])
    assert bool((found > 0).all())
    assert torch.equal(found, tree.priorities[items])


def test_last_of_equal_items_wins(device):
    tree = SumTree(1000, device=device)
    tree.update(torch.tensor([7, 3, 7, 999, 7]), torch.tensor([1.0, 2.0, 5.0, 4.0, 3.0]))
    assert tree.priorities[[3, 7, 999]].tolist() == [2.0, 3.0, 4.0]
    assert float(tree.total) == 9.0
    index = torch.randint(1000, (5000,), generator=generator(5))
    tree.update(index, torch.arange(5000))
    last = {int(item): position for position, item in enumerate(index)}
    assert all(tree.priorities[item] == position for item, position in last.items())


def test_sums_do_not_drift_from_the_priorities():
    tree, source = SumTree(300), generator(6)
    for _ in range(2000):
        index = torch.randint(300, (8,), generator=source)
        tree.update(index, 10 ** (torch.rand(8, generator=source, dtype=torch.float64) * 30 - 15))
    tree.update(torch.arange(300), 0.1)
    fresh = filled([0.1] * 300)
    assert torch.equal(tree.total, fresh.total)
    assert torch.equal(tree._sums, fresh._sums)


def test_one_value_serves_all_items_and_plain_numbers_are_taken():
    tree = SumTree(4)
    tree.update(torch.tensor([0, 2]), 0.5)
    tree.update(3, 2)
    assert tree.priorities.tolist() == [0.5, 0.0, 0.5, 2.0]
    tree.update(torch.tensor([], dtype=torch.int64), torch.tensor([]))
    assert float(tree.total) == 3.0


def test_large_trees_hold_their_items_too():
    capacity = 3_000_001
    tree, items = SumTree(capacity), torch.tensor([0, 63, 64, 1_234_567, capacity - 1])
    tree.update(items, torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    drawn, probability = tree.sample(150, generator=generator(7))
    assert torch.bincount(torch.searchsorted(items, drawn)).tolist() == [10, 20, 30, 40, 50]
    assert probability.unique().tolist() == pytest.approx([1 / 15, 2 / 15, 3 / 15, 4 / 15, 5 / 15])


def test_draws_repeat_with_their_generator():
    tree = filled(torch.rand(100, generator=generator(8)))
    first, second = (tree.sample(32, generator=generator(9)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[0], tree.sample(32, generator=generator(10))[0])


def test_state_continues_bit_for_bit(device):
    tree, source = SumTree(500, device=device), generator(11)
    for size in (1, 3, 400):  # sums of one group, of some and of all must round alike
        tree.update(torch.randint(500, (size,), generator=source), torch.rand(size, generator=source))
    copy = SumTree(500, device=device)
    copy.load_state_dict(tree.state_dict())
    assert torch.equal(copy.priorities, tree.priorities)
    assert torch.equal(copy._sums, tree._sums)
    draws = [one.sample(64, generator=generator(12, device)) for one in (tree, copy)]
    assert all(torch.equal(a, b) for a, b in zip(*draws, strict=True))


def test_state_is_a_copy():
    tree = filled([1.0, 2.0])
    state = tree.state_dict()
    tree.update(0, 5.0)
    assert state["priorities"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("bad", [-1.0, -1e-300, math.nan, math.inf])
@pytest.mark.parametrize("others", [[], [0.5, 2.0]])
def test_priorities_that_are_none_are_refused_and_change_nothing(bad, others):
    tree = filled([1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="priority must be finite and at least 0, got values from"):
        tree.update(torch.arange(1 + len(others)), torch.tensor([*others, bad], dtype=torch.float64))
    assert tree.priorities.tolist() == [1.0, 1.0, 1.0]


def test_bad_input_is_refused_with_its_reason():
    tree = SumTree(10)
    with pytest.raises(ValueError, match="whose priorities are all 0"):
        tree.sample(1)
    for index in (10, -1):
        with pytest.raises(IndexError, match=rf"index must be in \[0, 10\), got values from {index} to {index}"):
            tree.update(index, 1.0)
    with pytest.raises(TypeError, match=r"index must hold integers, got torch\.float32"):
        tree.update(torch.tensor([1.0]), 1.0)
    with pytest.raises(ValueError, match=r"one per index \(3\), got 2"):
        tree.update(torch.arange(3), torch.ones(2))
    with pytest.raises(ValueError, match="capacity must be at least 1, got 0"):
        SumTree(0)
    with pytest.raises(ValueError, match=r"shape \(10,\), the capacity of this tree, got \(9,\)"):
        tree.load_state_dict(SumTree(9).state_dict())
