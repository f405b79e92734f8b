"""CPLLoss and BehaviorCloningLoss: what they read, run, add and report."""

import pytest
import torch
from tensordict import TensorDict

from tesserl_preference_opt import BehaviorCloningLoss, CPLLoss, cpl_loss, cpl_ranked_loss


def log_probs(actor, segments):
    logits = actor.policy_parameters(segments["observation"])[0]
    return actor.distribution(logits).log_prob(segments["action"])


def by_the_formula(actor, batch, label, **options):
    sides = [batch[side] for side in ("chosen", "rejected")]
    own = [log_probs(actor, side) for side in sides]
    return cpl_loss(*own, label, mask_1=sides[0]["mask"], mask_2=sides[1]["mask"], **options).mean()


@pytest.mark.parametrize("options", [{}, {"alpha": 0.5, "bias": 0.8, "discount": 0.9}, {"length_normalize": True}])
def test_the_loss_is_the_formula_with_the_first_preferred(options, make_actor, make_batch):
    actor, batch = make_actor(), make_batch()
    out = CPLLoss(actor, **options)(batch)
    torch.testing.assert_close(out["loss"], by_the_formula(actor, batch, torch.zeros(7), **options))
    assert set(CPLLoss(actor).out_keys) == set(out.keys())


def test_labels_reach_the_formula(make_actor, make_batch):
    actor, batch = make_actor(), make_batch()
    label = torch.tensor([1.0, 0.5, 1.0, 0.5, 1.0, 1.0, 1.0])
    out = CPLLoss(actor)(batch.clone().set("label", label))
    torch.testing.assert_close(out["loss"], by_the_formula(actor, batch, 1 - label))


def test_rewards_are_advantages(make_actor, make_batch):
    actor, batch = make_actor(), make_batch()
    out = CPLLoss(actor, alpha=0.5)(batch)
    sums = [(log_probs(actor, batch[side]) * batch[side, "mask"]).sum(1) for side in ("chosen", "rejected")]
    torch.testing.assert_close(out["rewards/chosen"], 0.5 * sums[0].mean())
    torch.testing.assert_close(out["logps/rejected"], sums[1].mean())
    torch.testing.assert_close(out["rewards/accuracies"], (sums[0] > sums[1]).float().mean())


def test_added_terms_are_cloning_of_all_segments_entropy_and_value(make_actor, make_batch):
    actor, batch = make_actor(), make_batch()
    plain = CPLLoss(actor)(batch)
    steps = torch.cat([log_probs(actor, batch[side])[batch[side, "mask"]] for side in ("chosen", "rejected")])
    torch.testing.assert_close(plain["nll_loss"], -steps.mean())
    full = CPLLoss(actor, bc_coef=0.3, entropy_coef=0.2, value_coef=0.1)(batch)
    expected = plain["loss"] + 0.3 * plain["nll_loss"] - 0.2 * plain["entropy"] + 0.1 * full["value_loss"]
    torch.testing.assert_close(full["loss"], expected)


@pytest.mark.parametrize("grouped", [False, True])
def test_ranked_segments_are_compared_within_their_groups(grouped, make_actor, make_segments):
    torch.manual_seed(2)
    actor, segments, score = make_actor(), make_segments(11, 9), torch.randn(11)
    batch = TensorDict({"trajectory": segments, "score": score}, [11])
    group = torch.arange(11) % 3 if grouped else None
    if grouped:
        batch["group"] = group
    out = CPLLoss(actor, alpha=0.4, bias=0.7)(batch)
    advantage = 0.4 * (log_probs(actor, segments) * segments["mask"]).sum(1).detach()
    torch.testing.assert_close(out["loss"], cpl_ranked_loss(advantage, score, group, bias=0.7))
    pairs = [
        (better, worse)
        for better in range(11)
        for worse in range(11)
        if score[better] > score[worse] and (not grouped or better % 3 == worse % 3)
    ]
    right = sum(bool(advantage[better] > advantage[worse]) for better, worse in pairs)
    assert out["rewards/accuracies"].item() == pytest.approx(right / len(pairs))
    margin = sum(float(advantage[better] - advantage[worse]) for better, worse in pairs) / len(pairs)
    assert out["rewards/margins"].item() == pytest.approx(margin, abs=1e-5)


@pytest.mark.parametrize("kind", ["direct", "one_hot", "normal"])
@pytest.mark.parametrize("loss_class", [CPLLoss, BehaviorCloningLoss])
def test_masked_steps_change_nothing(loss_class, kind, make_actor, make_batch):
    loss = loss_class(make_actor(kind))
    batch, filled = make_batch(kind=kind), make_batch(kind=kind, filling=float("nan"))
    for side in ("chosen", "rejected"):
        filled[side, "action"][~filled[side, "mask"]] = -7
    torch.testing.assert_close(loss(filled), loss(batch))


@pytest.mark.parametrize("loss_class", [CPLLoss, BehaviorCloningLoss])
def test_compiles_without_a_graph_break(loss_class, make_actor, make_batch):
    loss, batch = loss_class(make_actor()), make_batch()
    compiled = torch.compile(lambda tensordict: loss(tensordict)["loss"], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(batch.clone()), loss(batch)["loss"])
    torch._dynamo.reset()


def test_cloning_is_of_the_chosen_or_of_all(make_actor, make_batch):
    actor, batch = make_actor(), make_batch()
    steps = [log_probs(actor, batch[side])[batch[side, "mask"]] for side in ("chosen", "rejected")]
    torch.testing.assert_close(BehaviorCloningLoss(actor)(batch)["loss"], -steps[0].mean())
    torch.testing.assert_close(BehaviorCloningLoss(actor, side="all")(batch)["loss"], -torch.cat(steps).mean())
    curious = BehaviorCloningLoss(actor, entropy_coef=0.5)(batch)
    torch.testing.assert_close(curious["loss"], curious["nll_loss"] - 0.5 * curious["entropy"])
    assert set(BehaviorCloningLoss(actor).out_keys) == set(curious.keys())


def test_cloning_takes_plain_steps_and_padded_segments_too(make_actor, make_segments):
    torch.manual_seed(4)
    actor, segments = make_actor(), make_segments(7, 9)
    expected = -log_probs(actor, segments)[segments["mask"]].mean()
    torch.testing.assert_close(BehaviorCloningLoss(actor)(segments)["loss"], expected)
    steps = segments[segments["mask"]].exclude("mask")
    torch.testing.assert_close(BehaviorCloningLoss(actor)(steps)["loss"], expected)
    by_keywords = BehaviorCloningLoss(actor)(observation=steps["observation"], action=steps["action"])
    torch.testing.assert_close(by_keywords[0], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "alpha must be above 0, got 0.0"),
        ({"bias": 1.5}, r"bias must be in \(0, 1\], got 1.5"),
        ({"discount": -0.1}, r"discount must be in \[0, 1\], got -0.1"),
    ],
)
def test_wrong_options_are_named(options, message, make_actor):
    with pytest.raises(ValueError, match=message):
        CPLLoss(make_actor(), **options)


def test_a_wrong_side_and_a_missing_score_are_named(make_actor, make_segments):
    with pytest.raises(ValueError, match="side must be chosen or all, got 'rejected'"):
        BehaviorCloningLoss(make_actor(), side="rejected")
    with pytest.raises(KeyError, match=r"expected the key 'score', the batch has \['trajectory'\]"):
        CPLLoss(make_actor())(TensorDict({"trajectory": make_segments(7, 9)}, [7]))
