import copy

import pytest
import torch

from tesserl_nn_components import FixedNormalizer, RunningNormalizer, VectorEncoder, keep_float64


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
        torch.testing.assert_close(normalizer.mean.float(), torch.tensor(case[after]["mean"]))
        torch.testing.assert_close(normalizer.variance.float(), torch.tensor(case[after]["var"]))
        assert normalizer.count.item() == case[after]["count"]


def test_merging_many_batches_equals_one_pass():
    data = torch.randn(1000, 3) * torch.tensor([1.0, 50.0, 0.01]) + torch.tensor([0.0, 300.0, -2.0])
    normalizer = RunningNormalizer(3)
    for batch in data.split([1, 9, 90, 300, 600]):
        normalizer.update(batch)
    torch.testing.assert_close(normalizer.mean, data.double().mean(0), rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(normalizer.variance, data.double().var(0, correction=0), rtol=1e-11, atol=0)


@pytest.mark.parametrize("size", [1, 8, 1024])
def test_statistics_far_from_zero_neither_freeze_nor_drift_whatever_the_size_of_batches(size):
    steps = 1_000 * size if size < 1024 else 20 * size  # 1000 updates of small batches: float32 loses most of a drift
    drift = 10 * torch.arange(steps, dtype=torch.float64).unsqueeze(1) / steps
    data = (torch.tensor([1e4, -3e5, 0.0]) + drift + torch.randn(steps, 3)).float()  # such as an altitude in cm
    normalizer = RunningNormalizer(3, clip=None)
    for batch in data.split(size):
        normalizer.update(batch)
    exact = data.double()
    torch.testing.assert_close(normalizer.mean, exact.mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(normalizer.variance, exact.var(0, correction=0), rtol=1e-9, atol=0)
    assert normalizer.count == steps
    expected = (exact - exact.mean(0)) / exact.std(0, correction=0)
    torch.testing.assert_close(normalizer(data).double(), expected, rtol=1e-4, atol=0.02)  # 0.016 is half a ulp of 3e5


def test_an_update_counts_after_billions_of_samples():
    normalizer = RunningNormalizer(1)
    normalizer.load_state_dict(
        {"mean": torch.tensor([100.0]), "variance": torch.tensor([1.0]), "count": torch.tensor(3_000_000_000)}
    )
    for _ in range(1000):
        normalizer.update(torch.tensor([[104.0]]))
    assert normalizer.count == 3_000_001_000
    assert float(normalizer.mean) - 100 == pytest.approx(4 * 1000 / 3_000_001_000, rel=1e-4)


@pytest.mark.parametrize(
    ("cast", "dtype"),
    [
        (lambda network: network.to(torch.bfloat16), torch.bfloat16),
        (lambda network: network.half(), torch.float16),
        (lambda network: network.half().float(), torch.float32),
        (lambda network: network.double().float(), torch.float32),
        (lambda network: copy.deepcopy(network.half()), torch.float16),
    ],
)
def test_casts_of_a_network_leave_statistics_exact(cast, dtype):
    encoder = VectorEncoder(2, hidden_sizes=[5], running=True)
    encoder.normalizer.update(torch.tensor([[1e4, 0.0], [1e4 + 1, 3.0]]))
    encoder = cast(encoder)
    assert encoder.normalizer.mean.tolist() == [1e4 + 0.5, 1.5]
    assert encoder.normalizer.variance.tolist() == [0.25, 2.25]
    assert {parameter.dtype for parameter in encoder.parameters()} == {dtype}
    assert encoder(torch.tensor([[1.0, 2.0]], dtype=dtype)).dtype == dtype


def test_a_device_without_float64_gets_statistics_in_float32():
    def to_device(tensor):  # what .to("mps") does
        if tensor.dtype == torch.float64:
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        return tensor.to("meta")

    moved = keep_float64(to_device)(torch.ones(3, dtype=torch.float64))
    assert (moved.device.type, moved.dtype) == ("meta", torch.float32)


@pytest.mark.parametrize("assign", [False, True])
def test_statistics_of_an_old_float32_state_load_and_go_on_in_float64(assign):
    encoder = VectorEncoder(2, hidden_sizes=[5], running=True)
    old = {name: value.float() if value.is_floating_point() else value for name, value in encoder.state_dict().items()}
    old |= {"normalizer.mean": torch.tensor([3.0, 4.0]), "normalizer.count": torch.tensor(10)}
    encoder.load_state_dict(old, assign=assign)
    assert old["normalizer.mean"].dtype == torch.float32
    assert encoder.normalizer.mean.dtype == encoder.normalizer.variance.dtype == torch.float64
    encoder.normalizer.update(torch.tensor([[14.0, 4.0]]))
    assert encoder.normalizer.mean.tolist() == pytest.approx([4.0, 4.0], rel=1e-15)


def test_normalised_features_keep_the_type_of_the_features():
    normalizer = RunningNormalizer(1, clip=None)
    normalizer.update(torch.tensor([[0.0], [2.0]]))  # mean 1, variance 1
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        normalized = normalizer(torch.tensor([[5.0]], dtype=dtype))
        assert (normalized.dtype, float(normalized)) == (dtype, pytest.approx(4.0, rel=1e-6))
    assert normalizer(torch.tensor([[5]])).dtype == torch.float32


def test_statistics_in_float64_compile_and_export():
    encoder = VectorEncoder(3, hidden_sizes=[4], running=True)
    encoder.normalizer.update(torch.randn(20, 3) + 100)
    x = torch.randn(6, 3) + 100
    program = torch.export.export(encoder, (x,)).module()
    torch.testing.assert_close(program(x), encoder(x))
    compiled = torch.compile(encoder, backend="aot_eager")
    torch.testing.assert_close(compiled(x), encoder(x))


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


def test_merged_statistics_are_those_of_one_update_with_all_samples():
    generator = torch.Generator().manual_seed(1)
    parts = [100 + torch.randn(number, 2, generator=generator, dtype=torch.float64) for number in (3, 8, 5)]
    merged, whole = RunningNormalizer(2), RunningNormalizer(2)
    for part in parts:
        merged.merge(len(part), part.mean(dim=0), part.var(dim=0, correction=0))
    whole.update(torch.cat(parts))
    merged.merge(0, torch.full((2,), torch.nan), torch.full((2,), torch.nan))
    torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(merged.variance, whole.variance, rtol=1e-12, atol=0.0)
    assert merged.count == 16
    merged.eval().merge(4, torch.zeros(2), torch.ones(2))
    assert merged.count == 16
