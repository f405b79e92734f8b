import copy

import pytest
import torch

from tesserl_nn_components import FixedNormalizer, RunningNormalizer


def test_fixed_statistics_normalise_and_travel():
    normalizer = FixedNormalizer([1.0, -2.0], [2.0, 0.5])
    torch.testing.assert_close(normalizer(torch.tensor([[3.0, -1.0]])), torch.tensor([[1.0, 2.0]]))
    assert set(normalizer.state_dict()) == {"mean", "std"}


def test_fixed_statistics_are_copies():
    std = torch.ones(2)
    normalizer = FixedNormalizer(torch.zeros(2), std)
    std.zero_()
    assert normalizer.std.tolist() == [1, 1]


@pytest.mark.parametrize("std", [[1.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_std_that_is_not_positive_is_refused(std):
    with pytest.raises(ValueError, match=r"std positive and finite, not so at features \[1\]"):
        FixedNormalizer([0.0, 0.0], std)


def test_statistics_of_different_length_are_refused():
    with pytest.raises(ValueError, match="one number per feature"):
        FixedNormalizer([0.0, 0.0], [1.0])


def test_running_statistics_agree_with_the_reference(vectors):
    case = vectors("rlpyt_misc.json")["running_mean_std"]
    normalizer = RunningNormalizer(2)
    for batch, after in (("batch1", "after1"), ("batch2", "after2")):
        normalizer.update(torch.tensor(case[batch]))
        torch.testing.assert_close(normalizer.mean, torch.tensor(case[after]["mean"]))
        torch.testing.assert_close(normalizer.variance, torch.tensor(case[after]["var"]))
        assert normalizer.count.item() == case[after]["count"]


def test_merging_many_batches_equals_one_pass():
    data = torch.randn(1000, 3) * torch.tensor([1.0, 50.0, 0.01]) + torch.tensor([0.0, 300.0, -2.0])
    normalizer = RunningNormalizer(3)
    for batch in data.split([1, 9, 90, 300, 600]):
        normalizer.update(batch)
    torch.testing.assert_close(normalizer.mean, data.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(normalizer.variance, data.var(0, correction=0), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(("num_updates", "batch_size"), [(20_000, 4), (500, 1024)], ids=["steps", "rollouts"])
def test_statistics_stay_close_over_many_batches_far_from_zero(num_updates, batch_size):
    mean, std = torch.tensor([0.0, 300.0, -300.0]), torch.tensor([1.0, 1.0, 0.05])
    normalizer, count, total, squares = RunningNormalizer(3), 0, torch.zeros(3).double(), torch.zeros(3).double()
    for _ in range(num_updates):
        batch = torch.randn(batch_size, 3) * std + mean
        normalizer.update(batch)
        centred = batch.double() - mean
        count, total, squares = count + batch_size, total + centred.sum(0), squares + centred.square().sum(0)
    expected = squares / count - (total / count).square()
    assert normalizer.count == count
    torch.testing.assert_close(normalizer.variance.double(), expected, rtol=1e-4, atol=0)
    off = (normalizer.mean.double() - mean - total / count).abs() / std
    assert off.max() < 0.01  # standard deviations; float32 itself is 3e-4 of them apart at 300 with a spread of 0.05


def test_batches_may_come_and_go_with_the_state_dict():
    data = torch.randn(40, 3) * 5 + 2
    whole, first = RunningNormalizer(3), RunningNormalizer(3)
    for part in data.split(20):
        whole.update(part)
    first.update(data[:20])
    second = RunningNormalizer(3)
    second.load_state_dict(first.state_dict())
    second.update(data[20:])
    assert set(second.state_dict()) == {"mean", "variance", "count"}
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in second.state_dict().items())


def test_every_leading_dimension_counts_as_samples():
    data = torch.randn(4, 5, 3)
    normalizer, flat = RunningNormalizer(3), RunningNormalizer(3)
    normalizer.update(data)
    flat.update(data.reshape(20, 3))
    assert normalizer.count.item() == 20
    torch.testing.assert_close(normalizer.variance, flat.variance)


def test_forward_normalises_clips_and_changes_nothing():
    normalizer = RunningNormalizer(1, clip=2.0)
    normalizer.update(torch.tensor([[0.0], [2.0]]))  # mean 1, variance 1
    state = copy.deepcopy(normalizer.state_dict())
    torch.testing.assert_close(normalizer(torch.tensor([[1.5], [9.0], [-9.0]])), torch.tensor([[0.5], [2.0], [-2.0]]))
    assert all(torch.equal(value, state[key]) for key, value in normalizer.state_dict().items())


def test_evaluation_mode_and_empty_batches_leave_the_statistics():
    normalizer = RunningNormalizer(2)
    normalizer.update(torch.randn(5, 2))
    state = copy.deepcopy(normalizer.state_dict())
    normalizer.update(torch.zeros(0, 2))
    normalizer.eval().update(torch.randn(5, 2))
    assert all(torch.equal(value, state[key]) for key, value in normalizer.state_dict().items())


def test_a_fresh_normalizer_is_the_identity():
    x = torch.randn(5, 2)
    torch.testing.assert_close(RunningNormalizer(2)(x), x)


def test_wrong_width_is_refused():
    with pytest.raises(ValueError, match=r"end in 2 features, got shape \(5, 3\)"):
        RunningNormalizer(2).update(torch.zeros(5, 3))


@pytest.mark.parametrize("arguments", [{"num_features": 0}, {"num_features": 2, "clip": 0.0}])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match=r"num_features|clip"):
        RunningNormalizer(**arguments)
