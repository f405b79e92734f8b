import pytest
import torch

from tesserl_nn_components import infer_leading_dims, restore_leading_dims


def test_infer_agrees_with_the_reference(vectors):
    for case in vectors("rlpyt_misc.json")["lead_dims"]:
        found = infer_leading_dims(torch.zeros(case["shape"]), case["dim"])
        assert found == (case["lead"], case["T"], case["B"], torch.Size(case["data"]))


def test_one_leading_dimension_is_the_batch():
    assert infer_leading_dims(torch.zeros(7, 4), 1) == (1, 1, 7, torch.Size([4]))


@pytest.mark.parametrize("shape", [(4, 84), (2, 3, 5, 4, 84, 84)])
def test_infer_refuses_other_numbers_of_leading_dimensions(shape):
    with pytest.raises(ValueError, match="0, 1 or 2 leading ones, got shape"):
        infer_leading_dims(torch.zeros(shape), 3)


def test_restore_agrees_with_the_reference(vectors):
    for case in vectors("rlpyt_misc.json")["restore"]:
        restored = restore_leading_dims(torch.zeros(case["in_shape"]), case["lead"], case["T"], case["B"])
        assert list(restored.shape) == case["out"]


@pytest.mark.parametrize("lead", [(), (5,), (3, 5), (1,), (1, 1), (0,), (3, 0)])
@pytest.mark.parametrize("data", [(2, 4), (6,), ()])
def test_restore_undoes_flattening(lead, data):
    x = torch.randn((*lead, *data))
    num_leading, time, batch, shape = infer_leading_dims(x, len(data))
    assert (num_leading, shape) == (len(lead), data)
    assert torch.equal(restore_leading_dims(x.reshape(time * batch, *shape), num_leading, time, batch), x)


def test_a_sequence_comes_back_as_a_tuple_and_strided_memory_is_fine():
    pair = [torch.arange(6.0).reshape(2, 3).T, torch.zeros(3)]  # the first is not contiguous
    policy, value = restore_leading_dims(pair, 2, 1, 3)
    assert policy.tolist() == [[[0, 3], [1, 4], [2, 5]]]
    assert value.shape == (1, 3)


@pytest.mark.parametrize("arguments", [(0, 1, 1), (1, 1, 5), (2, 3, 5), (3, 1, 1)])
def test_restore_refuses_sizes_that_do_not_fit(arguments):
    with pytest.raises(ValueError, match=r"must have first size|num_leading must be"):
        restore_leading_dims(torch.zeros(7, 4), *arguments)


def test_a_batch_of_one_number_without_leading_dimensions_is_a_number():
    restored = restore_leading_dims(torch.tensor([7.0]), 0)
    assert (restored.shape, restored.item()) == ((), 7)
    logits, value = restore_leading_dims((torch.zeros(1, 3), torch.zeros(1)), 0)
    assert (logits.shape, value.shape) == ((3,), ())


@pytest.mark.parametrize(
    ("arguments", "shapes"),
    [((0, 1, 1), [(3,), ()]), ((1, 1, 1), [(1, 3), (1,)]), ((2, 1, 1), [(1, 1, 3), (1, 1)])],
)
def test_the_shapes_of_rlpyt_for_a_batch_of_one(arguments, shapes):
    # rlpyt: view((T, B) + shape[1:]) for two leading dimensions, squeeze(0) for none, the tensors as they are for one
    restored = restore_leading_dims((torch.zeros(1, 3), torch.zeros(1)), *arguments)
    assert [tensor.shape for tensor in restored] == shapes


def test_infer_finds_the_leading_dimensions_of_numbers():
    assert infer_leading_dims(torch.zeros(()), 0) == (0, 1, 1, torch.Size([]))
    assert infer_leading_dims(torch.zeros(3, 2), 0) == (2, 3, 2, torch.Size([]))
