"""torchrl's contract on every loss: keys, coefficients, reductions, reset parameters; and the published formulas."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from tesserl_policy import ReferencePolicy
from tesserl_policy.testing import check_loss_contract, check_reductions
from tesserl_preference_opt import BehaviorCloningLoss, CPLLoss, KTOLoss, PreferenceLoss, bc_loss, cpl_loss

TERMS = {"entropy_coef": 0.02, "value_coef": 0.5}


@pytest.fixture
def pairs(make_batch):
    return make_batch(full=True).set("label", torch.tensor([1.0, 0.5, 1.0, 1.0, 1.0, 0.5, 1.0]))


@pytest.fixture
def judged(make_segments):
    torch.manual_seed(3)
    desirable = torch.tensor([True, False, True, False, False, True, True])
    return TensorDict({"trajectory": make_segments(7, 9, full=True), "desirable": desirable}, [7])


@pytest.fixture
def cloned(make_segments):
    torch.manual_seed(3)
    return make_segments(7, 9, full=True).exclude("mask")


def another(actor):
    """A reference that is not the actor."""
    reference = ReferencePolicy(actor).network
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.mul_(1.5)
    return reference


LOSSES = {
    "dpo": ("pairs", "direct", lambda actor, **more: PreferenceLoss(actor, nll_coef=0.1, **TERMS, **more)),
    "ipo": ("pairs", "categorical", lambda actor, **more: PreferenceLoss(actor, loss_type="ipo", **more)),
    "held": (
        "pairs",
        "direct",
        lambda actor, **more: PreferenceLoss(actor, reference_network=another(actor), **TERMS, **more),
    ),
    "cpl": ("pairs", "direct", lambda actor, **more: CPLLoss(actor, bc_coef=0.1, **TERMS, **more)),
    "cpl of a torchrl actor": ("pairs", "categorical", lambda actor, **more: CPLLoss(actor, **more)),
    "kto": ("judged", "categorical", lambda actor, **more: KTOLoss(actor, reference_network=another(actor), **more)),
    "cloning": ("cloned", "categorical", lambda actor, **more: BehaviorCloningLoss(actor, entropy_coef=0.02, **more)),
}


@pytest.fixture(params=LOSSES, ids=str)
def case(request, make_actor):
    batch, kind, build = LOSSES[request.param]

    def make(**more):
        torch.manual_seed(0)
        return build(make_actor(kind), **more)

    return make, request.getfixturevalue(batch)


def test_every_loss_keeps_torchrls_contract(case):
    check_loss_contract(*case)


def test_sums_and_means_are_those_of_the_terms(case):
    make, batch = case
    check_reductions(make, batch, num_valid=batch.numel())


def test_padding_adds_nothing_to_a_sum_of_steps(make_actor, make_segments):
    torch.manual_seed(3)
    batch = make_segments(4, 6)
    check_reductions(
        lambda **more: BehaviorCloningLoss(make_actor("categorical"), **more), batch, int(batch["mask"].sum())
    )
    terms = BehaviorCloningLoss(make_actor("categorical"), reduction="none")(batch)["loss"]
    assert terms.shape == (4, 6)
    assert (terms[~batch["mask"]] == 0).all()


def test_pairs_are_cloned_chosen_before_rejected(make_actor, make_batch):
    batch, actor = make_batch(full=True, kind="categorical"), make_actor("categorical")
    terms = BehaviorCloningLoss(actor, side="all", reduction="none")(batch)["loss"]
    assert terms.shape == (14, 9)
    chosen = BehaviorCloningLoss(actor, reduction="none")(batch)["loss"]
    torch.testing.assert_close(terms[:7], chosen)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("options", [{}, {"alpha": 0.3, "bias": 0.7, "discount": 0.9, "length_normalize": True}])
def test_the_loss_is_the_published_formula(make_actor, make_batch, full, options):
    actor, batch = make_actor("direct"), make_batch(full=full)
    batch["label"] = torch.tensor([1.0, 0.5, 1.0, 1.0, 1.0, 0.5, 1.0])
    log_probs = [
        actor.distribution(*actor.policy_parameters(batch[side, "observation"])).log_prob(batch[side, "action"])
        for side in ("chosen", "rejected")
    ]
    masks = {"mask_1": batch["chosen", "mask"], "mask_2": batch["rejected", "mask"]}
    expected = cpl_loss(*log_probs, 1 - batch["label"], **masks, **options)
    torch.testing.assert_close(CPLLoss(actor, reduction="none", **options)(batch)["loss"], expected)
    cloned = BehaviorCloningLoss(actor)(batch)["loss"]
    torch.testing.assert_close(cloned, bc_loss(log_probs[0], batch["chosen", "mask"]))


def test_ranked_segments_have_a_mean_only(make_actor, make_segments):
    batch = TensorDict({"trajectory": make_segments(4, 6), "score": torch.arange(4.0)}, [4])
    assert CPLLoss(make_actor())(batch)["loss"].dim() == 0
    with pytest.raises(ValueError, match="reduction must be mean for ranked segments, got 'sum'; give pairs"):
        CPLLoss(make_actor(), reduction="sum")(batch)


@pytest.mark.parametrize("kind", [PreferenceLoss, CPLLoss, KTOLoss, BehaviorCloningLoss])
def test_unknown_reductions_are_refused(kind, make_actor):
    with pytest.raises(ValueError, match="reduction must be one of mean, sum, none, got 'median'"):
        kind(make_actor(), reduction="median")


def test_a_reset_leaves_a_reference_as_it_is(make_actor, make_batch):
    loss = PreferenceLoss(make_actor(), reference_network="copy")
    kept = [parameter.clone() for parameter in loss.reference.parameters()]
    nn.utils.vector_to_parameters(torch.zeros(sum(p.numel() for p in loss.parameters())), loss.parameters())
    loss.reset_parameters_recursive()
    assert all(parameter.abs().sum() > 0 for parameter in loss.parameters())
    assert all(torch.equal(*pair) for pair in zip(kept, loss.reference.parameters(), strict=True))
    assert loss(make_batch())["loss"].isfinite()
