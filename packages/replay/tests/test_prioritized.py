import copy
import math
import pickle

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.data.replay_buffers import samplers

from tesserl_replay import PrioritizedSampler

ALPHA, BETA, EPS = 0.6, 0.4, 1e-3


def buffer(capacity=8, *, ndim=1, seed=0, **options):
    sampler = PrioritizedSampler(capacity, **{"alpha": ALPHA, "beta": BETA, "eps": EPS, **options})
    storage = LazyTensorStorage(capacity, ndim=ndim)
    rb = TensorDictReplayBuffer(storage=storage, sampler=sampler, priority_key="td_error")
    rb.set_rng(torch.Generator().manual_seed(seed))
    return rb


def items(start, stop):
    return TensorDict({"name": torch.arange(start, stop)}, [stop - start])


def learn(rb, index, priority):
    """Do as a training loop: the loss writes ``td_error`` into the batch, the buffer passes it on."""
    batch = rb[torch.tensor(index)].clone()
    batch["td_error"] = torch.tensor(priority).unsqueeze(-1)
    batch["index"] = torch.tensor(index)
    rb.update_tensordict_priority(batch)


def masses(rb):
    return rb.sampler.state_dict()["priorities"]


def test_probabilities_are_those_of_the_paper_with_alpha_applied_once():
    rb = buffer()
    rb.extend(items(0, 4))
    learn(rb, [0, 1, 2, 3], [0.0, 0.5, 2.0, 7.0])
    expected = [(error + EPS) ** ALPHA for error in (0.0, 0.5, 2.0, 7.0)]
    assert masses(rb).tolist() == pytest.approx([*expected, 0, 0, 0, 0])


def test_importance_weights_are_those_of_the_paper_over_the_largest_of_the_batch():
    rb = buffer()
    rb.extend(items(0, 4))
    errors = [0.1, 0.5, 2.0, 7.0]
    learn(rb, [0, 1, 2, 3], errors)
    probability = [(error + EPS) ** ALPHA / sum((other + EPS) ** ALPHA for other in errors) for error in errors]
    batch = rb.sample(500)
    assert batch["priority_weight"].dtype == torch.float32
    assert batch["priority_weight"].shape == (500,)
    weight = [(4 * probability[i]) ** -BETA for i in batch["index"].tolist()]
    assert batch["priority_weight"].tolist() == pytest.approx([value / max(weight) for value in weight], rel=1e-5)
    # a batch without the least likely item is scaled by the largest that it has
    learn(rb, [0], [0.0])
    for _ in range(20):
        assert rb.sample(1)["priority_weight"].item() == 1.0


def test_weight_exponent_may_be_alpha():
    rb = buffer(weight_exponent="alpha")
    rb.extend(items(0, 2))
    learn(rb, [0, 1], [1.0, 3.0])
    batch = rb.sample(100)
    ratio = ((3 + EPS) / (1 + EPS)) ** ALPHA
    expected = {0: 1.0, 1: ratio**-ALPHA}
    assert batch["priority_weight"].tolist() == pytest.approx([expected[i] for i in batch["index"].tolist()], rel=1e-5)


def test_beta_may_change_at_any_time():
    rb = buffer(beta=0.0)
    rb.extend(items(0, 2))
    learn(rb, [0, 1], [1.0, 3.0])
    assert bool((rb.sample(64)["priority_weight"] == 1).all())
    rb.sampler.beta = 1.0
    assert rb.sample(64)["priority_weight"].min().item() == pytest.approx(((1 + EPS) / (3 + EPS)) ** ALPHA)


def test_a_million_draws_follow_the_priorities():
    rb = buffer(200)
    rb.extend(items(0, 200))
    errors = torch.rand(200, generator=torch.Generator().manual_seed(1)) ** 4 * 10
    learn(rb, list(range(200)), errors.tolist())
    counts = torch.bincount(torch.cat([rb.sample(10_000)["name"] for _ in range(100)]), minlength=200).double()
    probability = (errors.double() + EPS) ** ALPHA
    expected = 1_000_000 * probability / probability.sum()
    statistic = float(((counts - expected) ** 2 / expected).sum())
    assert statistic < 199 + 4 * math.sqrt(2 * 199)


def test_new_and_overwritten_items_get_the_largest_priority_seen():
    rb = buffer(4)
    rb.extend(items(0, 3))
    assert masses(rb).tolist() == pytest.approx([(1 + EPS) ** ALPHA] * 3 + [0])
    learn(rb, [0, 1, 2], [9.0, 0.2, 0.3])
    learn(rb, [0], [0.1])  # nothing holds 9 any more, but it was seen
    rb.extend(items(3, 5))  # one new slot, and the ring begins again at slot 0
    expected = [9.0, 0.2, 0.3, 9.0]
    assert masses(rb).tolist() == pytest.approx([(error + EPS) ** ALPHA for error in expected])
    assert rb.sampler.default_priority == 9.0
    rb.add(items(5, 6)[0])
    assert masses(rb)[1].item() == pytest.approx((9 + EPS) ** ALPHA)


def test_small_errors_do_not_lower_the_priority_of_new_items_below_one():
    rb = buffer()
    rb.extend(items(0, 2))
    learn(rb, [0, 1], [0.01, 0.02])
    rb.extend(items(2, 3))
    assert masses(rb)[2].item() == pytest.approx((1 + EPS) ** ALPHA)


def test_the_ring_keeps_only_what_the_storage_holds():
    rb = buffer(5)
    plain = [0.0] * 5
    source = torch.Generator().manual_seed(2)
    for step in range(0, 60, 3):
        rb.extend(items(step, step + 3))
        for name in range(step, step + 3):
            plain[name % 5] = rb.sampler.default_priority
        batch = rb.sample(4)
        assert bool((batch["name"] % 5 == batch["index"]).all())
        assert bool((batch["name"] > step + 2 - 5).all())
        batch["td_error"] = torch.rand(4, generator=source) * 3
        rb.update_tensordict_priority(batch)
        for i, error in zip(batch["index"].tolist(), batch["td_error"].tolist(), strict=True):
            plain[i] = error
        expected = [(value + EPS) ** ALPHA if value else 0.0 for value in plain]
        assert masses(rb).tolist() == pytest.approx(expected, rel=1e-5)


def test_items_written_with_an_error_of_their_own_keep_it():
    rb, batch = buffer(), items(0, 3)
    batch["td_error"] = torch.tensor([0.5, 1.5, 2.5])
    rb.extend(batch)
    assert masses(rb)[:3].tolist() == pytest.approx([(error + EPS) ** ALPHA for error in (0.5, 1.5, 2.5)])


def test_a_storage_that_holds_data_already_gets_priorities():
    storage = LazyTensorStorage(6)
    TensorDictReplayBuffer(storage=storage).extend(items(0, 4))
    rb = TensorDictReplayBuffer(storage=storage, sampler=PrioritizedSampler(6, alpha=1.0, eps=0.0))
    assert masses(rb).tolist() == [1, 1, 1, 1, 0, 0]


def test_torchrl_takes_it_for_a_prioritised_sampler():
    assert isinstance(PrioritizedSampler(4), samplers.PrioritizedSampler)


def test_storages_of_environments_and_time_are_sampled_by_pairs():
    rb = buffer(12, ndim=2)
    name = torch.arange(12).reshape(4, 3)
    rb.extend(TensorDict({"name": name.T}, [3, 4]))  # torchrl keeps time first
    batch = rb.sample(300)
    assert set(batch["name"].tolist()) == set(range(12))
    assert torch.equal(name[batch["index"].unbind(-1)], batch["name"])
    batch["td_error"] = batch["name"].float()
    rb.update_tensordict_priority(batch)
    assert masses(rb).tolist() == pytest.approx([(i + EPS) ** ALPHA for i in range(12)], rel=1e-5)


def test_state_continues_exactly():
    rb, other = buffer(seed=3), buffer(alpha=0.2, beta=0.9, eps=0.0)
    rb.extend(items(0, 6))
    learn(rb, [0, 3, 5], [4.0, 0.1, 2.0])
    rb.sampler.beta = 0.7
    state = copy.deepcopy(rb.state_dict())
    assert all(isinstance(value, torch.Tensor) for value in state["_sampler"].values())
    other.load_state_dict(state)
    for _ in range(3):
        assert bool((rb.sample(32) == other.sample(32)).all())
    for one in (rb, other):
        one.extend(items(6, 7))
        learn(one, [2], [0.3])
    assert torch.equal(masses(rb), masses(other))


def test_dump_on_disk_continues_exactly(tmp_path):
    rb, other = buffer(seed=3), buffer()
    rb.extend(items(0, 6))
    learn(rb, [0, 3, 5], [4.0, 0.1, 2.0])
    rb.dumps(tmp_path / "replay")
    other.loads(tmp_path / "replay")
    assert bool((rb.sample(32) == other.sample(32)).all())
    assert other.sampler.default_priority == 4.0
    rb.dumps(tmp_path / "replay")  # over what is there


def test_pickling_keeps_priorities():
    sampler = PrioritizedSampler(4)
    sampler.update_priority(torch.arange(4), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    twin = pickle.loads(pickle.dumps(sampler))
    assert torch.equal(twin.state_dict()["priorities"], sampler.state_dict()["priorities"])


def test_emptying_the_buffer_forgets_priorities():
    rb = buffer()
    rb.extend(items(0, 4))
    learn(rb, [0], [50.0])
    rb.empty()
    with pytest.raises(RuntimeError, match="cannot sample from an empty storage; extend the buffer first"):
        rb.sample(1)
    rb.extend(items(0, 2))
    assert masses(rb).tolist() == pytest.approx([(1 + EPS) ** ALPHA] * 2 + [0] * 6)


def test_alpha_zero_is_uniform():
    rb = buffer(4, alpha=0.0)
    rb.extend(items(0, 4))
    learn(rb, [0, 1], [0.0, 1000.0])
    assert torch.bincount(rb.sample(400)["name"]).tolist() == [100] * 4


def test_items_that_a_writer_did_not_keep_are_passed_over():
    sampler = PrioritizedSampler(4, alpha=1.0, eps=0.0)
    sampler.update_priority(torch.tensor([-1, 2, -1]), torch.tensor([5.0, 6.0, 7.0]))
    sampler.mark_update(torch.tensor([-1, -1]))
    sampler.mark_update(torch.tensor([-1, 0]))
    assert sampler.state_dict()["priorities"].tolist() == [6, 0, 6, 0]


@pytest.mark.parametrize("bad", [-0.5, math.nan, math.inf])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 2.0])
def test_errors_that_are_none_are_refused_and_change_nothing(bad, alpha):
    rb = buffer(alpha=alpha)
    rb.extend(items(0, 4))
    before = masses(rb)
    with pytest.raises(ValueError, match="priority must be finite and at least 0"):
        learn(rb, [0, 1], [2.0, bad])
    assert torch.equal(masses(rb), before)
    assert rb.sampler.default_priority == 1.0


def test_bad_input_is_refused_with_its_reason():
    with pytest.raises(ValueError, match="alpha must be at least 0, got -1; 0 is uniform"):
        PrioritizedSampler(4, alpha=-1)
    with pytest.raises(ValueError, match=r"beta must be in \[0, 1\], got 1.5"):
        PrioritizedSampler(4, beta=1.5)
    with pytest.raises(ValueError, match="eps must be at least 0, got -1"):
        PrioritizedSampler(4, eps=-1)
    with pytest.raises(ValueError, match='weight_exponent must be "beta" or "alpha", got \'gamma\''):
        PrioritizedSampler(4, weight_exponent="gamma")
    with pytest.raises(ValueError, match="capacity must be at least 1, got 0"):
        PrioritizedSampler(0)
    sampler = PrioritizedSampler(4)
    with pytest.raises(ValueError, match=r"beta must be in \[0, 1\], got -0.1"):
        sampler.beta = -0.1
    with pytest.raises(IndexError, match=r"index must be in \[0, 4\), got values from 4 to 4"):
        sampler.mark_update(4)
    with pytest.raises(ValueError, match="several dimensions needs the storage"):
        sampler.mark_update(torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"shape \(4,\), the capacity of this tree, got \(5,\)"):
        sampler.load_state_dict(PrioritizedSampler(5).state_dict())


def test_excluded_items_are_not_drawn_until_they_are_written_again():
    rb = buffer()
    rb.extend(items(0, 8))
    rb.sampler.exclude(torch.tensor([1, 6]))
    assert set(rb.sample(400)["index"].tolist()) == {0, 2, 3, 4, 5, 7}
    rb.sampler.load_state_dict(rb.sampler.state_dict())
    assert set(rb.sample(400)["index"].tolist()) == {0, 2, 3, 4, 5, 7}
    rb.extend(items(8, 10))  # over 0 and 1
    assert set(rb.sample(400)["index"].tolist()) == {0, 1, 2, 3, 4, 5, 7}
