"""Checks of torchrl's loss contract, for the tests of packages that define a loss."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

from tesserl_policy.loss_module import DirectLossModule


def check_loss_contract(make_loss: Callable[..., DirectLossModule], batch: TensorDictBase) -> None:
    """Check that a loss fulfils torchrl's contract: keys, dispatch, coefficients, locked batches, reset parameters.

    Args:
        make_loss: builds the loss, always with the same weights.
        batch: every entry that the loss reads, without padding.

    Raises:
        AssertionError: the loss violates the contract; the message names the violation.
    """
    check_keys(make_loss(), batch)
    check_results(make_loss(), batch)
    check_dispatch(make_loss(), batch)
    check_renamed_keys(make_loss(), batch)
    check_coefficients(make_loss(), batch)
    check_reset(make_loss(), batch)


def check_keys(loss: DirectLossModule, batch: TensorDictBase) -> None:
    """Check the keys of all and of selected results, on a locked batch that must not change."""
    _require(not loss.functional, "functional must be False")
    before = batch.clone()
    results = loss(batch.lock_())
    batch.unlock_()
    _require(set(batch.keys(True)) == set(before.keys(True)) and bool((batch == before).all()), "the batch has changed")
    _require(set(results.keys()) == set(loss.out_keys), f"out_keys must be {sorted(results.keys())}")
    first, last = loss.out_keys[0], loss.out_keys[-1]
    selected = loss.select_out_keys(last, first)
    _require(selected is loss and loss.out_keys == [last, first], "select_out_keys must change out_keys")
    _require(list(loss(batch).keys()) == [last, first], "select_out_keys must leave out the other results")
    _require(set(loss.reset_out_keys().out_keys) == set(results.keys()), "reset_out_keys must bring all keys back")
    try:
        loss.select_out_keys("no such key")
    except ValueError:
        return
    raise AssertionError("select_out_keys must reject an unknown key")


def check_results(loss: DirectLossModule, batch: TensorDictBase) -> None:
    """Check that `DirectLossModule.results` returns all results of a call, even if only some keys are selected."""
    expected = deepcopy(loss)(batch)
    results = loss.select_out_keys(loss.out_keys[0]).results(batch)
    _require(set(results) == set(expected.keys()), f"results must be {sorted(expected.keys())}, got {sorted(results)}")
    for key, result in results.items():
        _require(_is_close(result, expected[key]), f"{key} must be the same as that of a call")


def check_dispatch(loss: DirectLossModule, batch: TensorDictBase) -> None:
    """Check that a call with keyword arguments returns the results of a call with a batch."""
    entries = batch.select(*loss.in_keys)
    names = {"_".join(key) if isinstance(key, tuple) else key: entries[key] for key in loss.in_keys}
    expected = loss(entries)
    for selected in (loss.out_keys, loss.out_keys[:1]):
        results = loss.select_out_keys(*selected)(**names)
        results = results if isinstance(results, tuple) else (results,)
        for key, result in zip(selected, results, strict=True):
            _require(_is_close(result, expected[key]), f"{key} must be the same by keyword")


def check_renamed_keys(loss: DirectLossModule, batch: TensorDictBase) -> None:
    """Check that every key can be renamed."""
    expected, names = loss(batch), vars(loss.tensor_keys).copy()
    for name, key in names.items():
        if key not in batch.keys(True) or name == "value":  # a critic also writes this name
            continue
        loss.set_keys(**{name: "another name"})
        renamed = loss(batch.clone(False).rename_key_(key, "another name"))
        _require(_are_close(renamed, expected), f"{key} cannot be renamed")
        loss.set_keys(**{name: None})
        _require(getattr(loss.tensor_keys, name) == getattr(type(loss).default_keys(), name), f"{name} has no default")
        loss.set_keys(**{name: key})


def check_coefficients(loss: DirectLossModule, batch: TensorDictBase) -> None:
    """Check that coefficients are buffers, and that assignments and writes into them change the loss."""
    expected = loss(batch)
    for name in loss._coefficients:
        number = loss._read_coefficients()[name]
        if not number:  # the batch may lack the entries of this term
            continue
        buffer = dict(loss.named_buffers())[name]
        _require(name not in loss.state_dict(), f"{name} must not be in the state dict")
        _require(deepcopy(loss)._read_coefficients()[name] == number, f"a copy must have the {name} of the original")
        setattr(loss, name, 0.25)
        assigned = loss(batch)
        _require(not _are_close(assigned, expected), f"{name} must change the loss")
        _require(getattr(loss, name) is buffer and float(buffer) == 0.25, f"{name} must be assigned in place")
        setattr(loss, name, number)
        buffer.fill_(0.25)
        written = loss(batch)
        _require(_are_close(written, assigned), f"{name} must be read again after a write into the buffer")
        setattr(loss, name, number)


def check_reset(loss: DirectLossModule, batch: TensorDictBase) -> None:
    """Check that trained parameters get a gradient and are initialised again, and that others do not change."""
    results = loss(batch)
    sum(result.sum() for key, result in results.items() if str(key).startswith("loss")).backward()
    trained = dict(loss.named_parameters())
    without = [name for name, parameter in trained.items() if parameter.grad is None]
    _require(not without, f"parameters without a gradient: {without}")
    storages = {parameter.data_ptr() for parameter in trained.values()}
    state = {name: value for name, value in loss.state_dict().items() if value.data_ptr() not in storages}
    frozen = {name: value.clone() for name, value in state.items()}
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(1000.0)
    loss.reset_parameters_recursive()
    unchanged = [name for name, parameter in trained.items() if parameter.abs().max() > 500]
    _require(not unchanged, f"parameters that are not reset: {unchanged}")
    moved = [name for name, value in frozen.items() if not torch.equal(loss.state_dict()[name], value)]
    _require(not moved, f"entries that must stay and have changed: {moved}")


def check_reductions(make_loss: Callable[..., DirectLossModule], batch: TensorDictBase, num_valid: int) -> None:
    """Check that the reductions ``"sum"`` and ``"mean"`` equal the sum and the mean of the terms.

    Args:
        make_loss: builds the loss from ``reduction``, always with the same weights.
        batch: every entry that the loss reads.
        num_valid: number of terms, without padding.

    Raises:
        AssertionError: they differ.
    """
    results = {reduction: make_loss(reduction=reduction)(batch) for reduction in ("mean", "sum", "none")}
    for key, mean in results["mean"].items():
        if not key.startswith("loss"):
            _require(_is_close(results["none"][key], mean), f"{key} must not depend on the reduction")
            continue
        terms, total = results["none"][key], results["sum"][key]
        _require(terms.dim() > 0 and total.dim() == mean.dim() == 0, f"{key} must be a scalar unless reduction is none")
        _require(_is_close(terms.sum(), total), f"{key} must be the sum of its terms")
        _require(_is_close(total / num_valid, mean), f"{key} must be the mean of its terms")


def _are_close(left: TensorDictBase, right: TensorDictBase) -> bool:
    return all(_is_close(left[key], right[key]) for key in set(left.keys()) | set(right.keys()))


def _is_close(left: Tensor, right: Tensor) -> bool:
    return torch.allclose(left, right, rtol=1e-4, atol=1e-6, equal_nan=True)


def _require(holds: bool, message: Any) -> None:
    if not holds:
        raise AssertionError(message)
