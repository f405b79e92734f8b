"""Reading a batch, and the errors that name what is wrong with it."""

import pytest
import torch
from tensordict import LazyStackedTensorDict, TensorDict

from tesserl_policy import Entries, get_entry

DETERMINED = torch.arange(12.0)


def batch():
    return TensorDict(
        {
            "advantage": DETERMINED.reshape(3, 4, 1).clone().requires_grad_(),
            "weight": DETERMINED.reshape(3, 4),
            "trajectory": DETERMINED[:3].reshape(3, 1).expand(3, 2),
            "mask": torch.arange(4).expand(3, 4) < 3,
            "collector": {"mask": (torch.arange(4).expand(3, 4) > 0).unsqueeze(-1)},
        },
        [3],
    )


def stacked():
    return LazyStackedTensorDict(*batch().detach().unbind(0))


@pytest.mark.parametrize("make", [batch, stacked])
def test_entries_are_found_by_name_and_by_nested_name(make):
    entries = Entries(make())
    assert entries.get("weight").shape == (3, 4)
    assert entries.get(("collector", "mask")).shape == (3, 4, 1)
    assert entries.find("absent") is None
    assert entries.find(("collector", "absent")) is None
    assert entries.find(("absent", "mask")) is None


def test_columns_have_one_number_per_step_and_no_gradient():
    entries = Entries(batch())
    for name in ("advantage", "weight"):
        column = entries.column(name, (3, 4))
        assert torch.equal(column, DETERMINED.reshape(3, 4))
        assert not column.requires_grad
    assert entries.column("absent", (3, 4)) is None
    with pytest.raises(ValueError, match=r"trajectory must have the shape of the steps \(3, 4\), .*, got \(3, 2\)"):
        entries.column("trajectory", (3, 4))


def test_steps_are_valid_if_all_masks_say_so():
    entries, keys = Entries(batch()), ["mask", "absent", ("collector", "mask")]
    assert entries.mask(keys, (3, 4)).tolist() == [[False, True, True, False]] * 3
    assert entries.mask(["absent"], (3, 4)) is None
    with pytest.raises(ValueError, match=r"mask must have the shape of the steps \(12,\)"):
        entries.mask(["mask"], (12,))


def test_a_missing_entry_is_named_with_those_of_the_batch():
    message = r"expected the key 'action', the batch has \['advantage', .*'weight'\]; rename keys with set_keys"
    for get in (Entries(batch()).get, lambda key: get_entry(batch(), key)):
        with pytest.raises(KeyError, match=message):
            get("action")


def test_a_dict_that_dispatch_took_for_one_entry_is_named():
    taken = TensorDict({"chosen": {"observation": {"action": torch.zeros(2), "reward": torch.zeros(2)}}})
    message = r"a batch must be a TensorDict, got a dict, which counts as one entry; give TensorDict\(batch, batch_size"
    with pytest.raises(TypeError, match=message):
        get_entry(taken, "action")
    with pytest.raises(KeyError, match="expected the key 'mask'"):
        get_entry(taken, "mask")
    with pytest.raises(TypeError, match=message):
        get_entry(taken, "mask", siblings=["reward"])
