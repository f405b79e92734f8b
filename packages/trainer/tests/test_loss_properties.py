"""The schema and the package of preference losses agree on the properties of each loss."""

from typing import Any, get_args

import pytest
import torch

from tesserl_configs import preference_losses as schema
from tesserl_configs.introspection import blocks_in, kinds_of
from tesserl_preference_opt.functional import pairwise


def kinds(union: Any, key: str = "kind") -> set[str]:
    """Return the kinds of the blocks of a union that have a key."""
    return {kind for block in blocks_in(union) if key in block.model_fields for kind in kinds_of(block)}


def test_the_losses_are_those_of_the_package():
    assert kinds(schema.PairedLoss) == set(pairwise.LOSS_TYPES)
    assert kinds(schema.FDivergence) == set(pairwise.F_DIVERGENCES)


def test_options_stand_where_the_package_reads_them():
    assert kinds(schema.PairedLoss, "label_smoothing") == set(pairwise.SMOOTHED_LOSS_TYPES)
    assert kinds(schema.PairedLoss, "f_divergence") == set(pairwise.DIFFERENCE_LOSS_TYPES)
    assert kinds(schema.SmoothedLoss) == set(pairwise.SMOOTHED_LOSS_TYPES)


def test_averages_and_references_are_those_of_the_package():
    assert {*schema.AVERAGED, "ipo"} == set(pairwise.AVERAGED_LOSS_TYPES)  # ipo can sum as well
    assert set(schema.REFERENCE_FREE) == set(pairwise.REFERENCE_FREE_LOSS_TYPES)


@pytest.mark.parametrize("kind", [kind for kind in get_args(pairwise.LossType) if kind != "orpo"])
def test_a_loss_is_sorted_if_the_gradient_of_a_pair_depends_on_the_others(kind):
    generator = torch.Generator().manual_seed(7)
    chosen, rejected, *reference = torch.randn(4, 6, generator=generator)

    def gradient(others: torch.Tensor) -> torch.Tensor:
        """Return the gradient of the loss with respect to the first chosen segment, with other pairs beside it."""
        first = chosen[:1].clone().requires_grad_()
        scores = torch.cat([first, others])
        loss = pairwise.preference_loss(
            scores, rejected, *reference, loss_type=kind, beta=0.3, label_smoothing=0.1,
            chosen_lengths=torch.full((6,), 3), rejected_lengths=torch.full((6,), 3),
        )  # fmt: skip
        return torch.autograd.grad(loss.sum(), first)[0]

    depends = not torch.allclose(gradient(chosen[1:]), gradient(chosen[1:] - 5), atol=1e-6)
    assert depends == (kind in schema.SORTED)
