"""PreferenceLoss: what it reads, runs, adds and reports."""

import copy
import pickle

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn

from tesserl_preference_opt import PreferenceLoss, preference_loss
from tesserl_preference_opt.functional.pairwise import LOSS_TYPES, SMOOTHED_LOSS_TYPES

KINDS = ["direct", "categorical", "one_hot", "normal", "factorised_normal", "tanh_normal"]


def log_probs_by_hand(actor, segments):
    """Log-prob of each step, one at a time, without the package."""
    rows = []
    for row in segments:
        steps = []
        for step in row:
            if hasattr(actor, "get_dist"):
                distribution = actor.get_dist(step.select("observation").unsqueeze(0))
            else:
                distribution = actor.distribution(*actor.policy_parameters(step["observation"].unsqueeze(0)))
            steps.append(distribution.log_prob(step["action"].unsqueeze(0)).sum())
        rows.append(torch.stack(steps))
    return torch.stack(rows)


def sums_by_hand(actor, batch, discount=1.0):
    """Policy and reference sums of chosen and rejected, and lengths."""
    found = []
    for side in ("chosen", "rejected"):
        segments = batch[side]
        mask = segments["mask"].double()
        weight = mask * discount ** torch.arange(mask.shape[1], dtype=torch.float64)
        own = (weight * log_probs_by_hand(actor, segments)).sum(1)
        found.append((own, (weight * segments["reference_log_prob"]).sum(1), weight.sum(1)))
    return [list(each) for each in zip(*found, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_and_its_metrics_are_those_of_the_formula_on_sums_by_hand(kind, make_actor, make_batch):
    actor, batch = make_actor(kind), make_batch(kind=kind)
    out = PreferenceLoss(actor, beta=0.3)(batch)
    policy, reference, _ = sums_by_hand(actor, batch)
    loss = preference_loss(*policy, *reference, beta=0.3).mean()
    torch.testing.assert_close(out["loss"].double(), loss, rtol=1e-5, atol=1e-6)
    rewards = [0.3 * (own - held) for own, held in zip(policy, reference, strict=True)]
    expected = {
        "rewards/chosen": rewards[0].mean(),
        "rewards/rejected": rewards[1].mean(),
        "rewards/margins": (rewards[0] - rewards[1]).mean(),
        "rewards/accuracies": (rewards[0] > rewards[1]).double().mean(),
        "logps/chosen": policy[0].mean(),
        "logps/rejected": policy[1].mean(),
        "nll_loss": -policy[0].sum() / batch["chosen", "mask"].sum(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(out[name].double(), value, rtol=1e-4, atol=1e-5, msg=name)
    assert set(out.keys()) == {*expected, "loss", "entropy"}
    assert set(PreferenceLoss(actor).out_keys) == set(out.keys())


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_every_loss_type_is_the_formula_on_sums_and_lengths(loss_type, make_actor, make_batch):
    actor, batch = make_actor(), make_batch()
    smoothing = 0.2 if loss_type in SMOOTHED_LOSS_TYPES else 0.0
    options = {"loss_type": loss_type, "beta": 0.4, "label_smoothing": smoothing}
    out = PreferenceLoss(actor, nll_coef=0.0, **options)(batch)
    policy, reference, lengths = sums_by_hand(actor, batch)
    expected = preference_loss(
        *policy, *reference, chosen_lengths=lengths[0], rejected_lengths=lengths[1], **options
    ).mean()
    torch.testing.assert_close(out["loss"].double(), expected, rtol=1e-5, atol=1e-5)


def test_discount_and_length_normalisation_reach_policy_and_reference(make_actor, make_batch):
    actor, batch = make_actor(), make_batch()
    policy, reference, weights = sums_by_hand(actor, batch, discount=0.8)
    out = PreferenceLoss(actor, beta=2.0, discount=0.8, length_normalize=True)(batch)
    policy, reference = (
        [each / weight for each, weight in zip(sums, weights, strict=True)] for sums in (policy, reference)
    )
    expected = preference_loss(*policy, *reference, beta=2.0).mean()
    torch.testing.assert_close(out["loss"].double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        out["rewards/chosen"].double(), 2 * (policy[0] - reference[0]).mean(), rtol=1e-4, atol=1e-5
    )


def test_ipo_takes_averages_unless_told_otherwise(make_actor, make_batch):
    actor, batch = make_actor(), make_batch()
    policy, reference, lengths = sums_by_hand(actor, batch)
    averaged = preference_loss(
        *policy, *reference, loss_type="ipo", chosen_lengths=lengths[0], rejected_lengths=lengths[1]
    ).mean()
    summed = preference_loss(*policy, *reference, loss_type="ipo").mean()
    for length_normalize, expected in ((None, averaged), (True, averaged), (False, summed)):
        loss = PreferenceLoss(actor, loss_type="ipo", length_normalize=length_normalize)
        torch.testing.assert_close(loss(batch)["loss"].double(), expected, rtol=1e-5, atol=1e-5)


def test_several_types_are_added_by_their_weights(make_actor, make_batch):
    actor, batch = make_actor(), make_batch()
    both = PreferenceLoss(actor, loss_type=["sigmoid", "bco_pair"], loss_weights=[0.5, 2.0])(batch)["loss"]
    alone = [PreferenceLoss(actor, loss_type=loss_type)(batch)["loss"] for loss_type in ("sigmoid", "bco_pair")]
    torch.testing.assert_close(both, 0.5 * alone[0] + 2.0 * alone[1])


def gradients(loss, batch):
    for parameter in loss.parameters():
        parameter.grad = None
    out = loss(batch)
    out["loss"].backward()
    return out, [parameter.grad for parameter in loss.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("filling", [float("nan"), 1e9])
def test_masked_steps_change_neither_loss_nor_metric_nor_gradient(kind, filling, make_actor, make_batch):
    actor = make_actor(kind)
    loss = PreferenceLoss(actor, nll_coef=0.1, entropy_coef=0.0 if kind == "tanh_normal" else 0.1)
    batch, filled = make_batch(kind=kind), make_batch(kind=kind, filling=filling)
    for side in ("chosen", "rejected"):
        padding = ~filled[side, "mask"]
        filled[side, "reference_log_prob"][padding] = filling
        filled[side, "action"][padding] = -7
    torch.manual_seed(0)
    plain = gradients(loss, batch)
    torch.manual_seed(0)
    other = gradients(loss, filled)
    torch.testing.assert_close(other[0], plain[0], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(other[1], plain[1], rtol=1e-5, atol=1e-7)


def test_sides_may_be_padded_to_different_lengths(make_actor, make_batch):
    actor = make_actor()
    batch = make_batch(lengths=(9, 11))
    wide = TensorDict(
        {
            "chosen": torch.cat([batch["chosen"], batch["chosen"][:, :2].clone()], dim=1),
            "rejected": batch["rejected"],
        },
        [7],
    )
    wide["chosen", "mask"][:, 9:] = False
    loss = PreferenceLoss(actor)
    torch.testing.assert_close(loss(wide), loss(batch))


def test_absent_masks_mean_that_all_steps_count_and_torchrls_mask_is_read(make_actor, make_batch):
    loss = PreferenceLoss(make_actor())
    full = make_batch(full=True)
    bare = TensorDict({side: full[side].exclude("mask") for side in ("chosen", "rejected")}, [7])
    torch.testing.assert_close(loss(bare), loss(full))
    batch = make_batch()
    renamed = TensorDict({side: batch[side].exclude("mask") for side in ("chosen", "rejected")}, [7])
    for side in ("chosen", "rejected"):
        renamed[side, "collector", "mask"] = batch[side, "mask"].unsqueeze(-1)
    torch.testing.assert_close(loss(renamed), loss(batch))


def test_swapping_the_sides_swaps_rewards_and_the_sign_of_the_margin(make_actor, make_batch):
    loss, batch = PreferenceLoss(make_actor()), make_batch()
    swapped = TensorDict({"chosen": batch["rejected"], "rejected": batch["chosen"]}, [7])
    plain, other = loss(batch), loss(swapped)
    torch.testing.assert_close(other["rewards/chosen"], plain["rewards/rejected"])
    torch.testing.assert_close(other["rewards/margins"], -plain["rewards/margins"])
    torch.testing.assert_close(other["rewards/accuracies"], 1 - plain["rewards/accuracies"])


def test_a_tie_is_half_a_pair_each_way_and_does_not_count_for_the_accuracy(make_actor, make_batch):
    loss, batch = PreferenceLoss(make_actor(), loss_type="hinge", beta=2.0), make_batch()
    swapped = TensorDict({"chosen": batch["rejected"], "rejected": batch["chosen"]}, [7])
    mean = (loss(batch)["loss"] + loss(swapped)["loss"]) / 2
    tied = batch.clone().set("label", torch.full((7,), 0.5))
    out = loss(tied)
    torch.testing.assert_close(out["loss"], mean)
    assert out["rewards/accuracies"].isnan()
    some = batch.clone().set("label", torch.tensor([1.0, 0.5, 1.0, 0.5, 0.5, 0.5, 0.5]))
    assert loss(some)["rewards/accuracies"].item() in (0.0, 0.5, 1.0)


def test_a_tie_is_cdpo_at_one_half(make_actor, make_batch):
    actor, batch = make_actor(), make_batch()
    tied = batch.clone().set("label", torch.full((7,), 0.5))
    smoothed = PreferenceLoss(actor, label_smoothing=0.5)(batch)["loss"]
    torch.testing.assert_close(PreferenceLoss(actor)(tied)["loss"], smoothed)


def test_labels_of_one_change_nothing(make_actor, make_batch):
    loss, batch = PreferenceLoss(make_actor(), loss_type="aot"), make_batch()
    torch.testing.assert_close(loss(batch.clone().set("label", torch.ones(7))), loss(batch))


def test_added_terms_are_cloning_of_the_chosen_entropy_and_value(make_actor, make_batch):
    actor, batch = make_actor(), make_batch()
    plain = PreferenceLoss(actor)(batch)
    anchored = PreferenceLoss(actor, nll_coef=0.7)(batch)
    torch.testing.assert_close(anchored["loss"], plain["loss"] + 0.7 * plain["nll_loss"])
    curious = PreferenceLoss(actor, entropy_coef=0.3)(batch)
    torch.testing.assert_close(curious["loss"], plain["loss"] - 0.3 * plain["entropy"])
    valued = PreferenceLoss(actor, value_coef=0.5)(batch)
    errors = [
        (actor.state_value(batch[side, "observation"]) - batch[side, "value_target"]).square()[batch[side, "mask"]]
        for side in ("chosen", "rejected")
    ]
    expected = 0.5 * torch.cat(errors).mean()
    torch.testing.assert_close(valued["value_loss"], expected)
    torch.testing.assert_close(valued["loss"], plain["loss"] + 0.5 * expected)
    assert "value_loss" in PreferenceLoss(actor, value_coef=0.5).out_keys


def test_a_critic_of_its_own_is_trained_by_the_value_loss_alone(make_actor, make_batch):
    actor = make_actor("categorical")
    critic = TensorDictModule(nn.Linear(5, 1), ["observation"], ["state_value"])
    loss, batch = PreferenceLoss(actor, critic, value_coef=1.0), make_batch(kind="categorical")
    out = loss(batch)
    out["loss"].backward()
    torch.testing.assert_close(out["loss"], PreferenceLoss(actor)(batch)["loss"] + out["value_loss"])
    assert critic.module.weight.grad.abs().sum() > 0
    assert {id(each) for each in critic.parameters()} < {id(each) for each in loss.parameters()}


def test_the_end_of_the_longer_segment_weighs_less(make_actor, make_batch):
    actor, batch = make_actor(), make_batch()
    loss = PreferenceLoss(actor, ld_alpha=0.3, beta=0.5)(batch)
    margins = []
    for pair in batch:
        lengths = [int(pair[side, "mask"].sum()) for side in ("chosen", "rejected")]
        scores = []
        for side in ("chosen", "rejected"):
            steps = pair[side][pair[side, "mask"]]
            policy = actor.distribution(*actor.policy_parameters(steps["observation"])).log_prob(steps["action"])
            ratio = policy - steps["reference_log_prob"]
            scores.append(ratio[: min(lengths)].sum() + 0.3 * ratio[min(lengths) :].sum())
        margins.append(scores[0] - scores[1])
    expected = -torch.nn.functional.logsigmoid(0.5 * torch.stack(margins)).mean()
    torch.testing.assert_close(loss["loss"], expected)
    assert len({int(each.sum()) for each in batch["chosen", "mask"]}) > 1  # there are tails


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ld_alpha": 1.5}, r"ld_alpha must be in \[0, 1\], got 1.5"),
        ({"ld_alpha": 0.5, "loss_type": "simpo"}, "ld_alpha must be 1 where log-probs are averages, got 0.5"),
        ({"loss_type": "bco"}, "loss_type bco takes single segments; use KTOLoss"),
    ],
)
def test_weights_of_tails_are_for_sums(make_actor, options, message):
    with pytest.raises(ValueError, match=message):
        PreferenceLoss(make_actor(), **options)


def trl_weights(actor, batch):
    """Weights of pairs by TRL's lines (``use_weighting``), from the logits of padded segments."""
    all_weights = []
    for side in ("chosen", "rejected"):
        segments, mask = batch[side], batch[side, "mask"]
        logprobs = torch.log_softmax(actor.policy_parameters(segments["observation"])[0], dim=-1)
        per_token_logps = logprobs.gather(-1, segments["action"].unsqueeze(-1)).squeeze(-1)
        per_token_logps_adjusted = per_token_logps - torch.logsumexp(2 * logprobs, dim=-1)
        all_weights.append((per_token_logps_adjusted * mask).sum(-1) / mask.sum(-1))
    return torch.clamp(torch.exp(all_weights[0] + all_weights[1]), max=1)


def test_weighted_pairs_have_the_weights_of_trl(make_actor, make_batch):
    actor, batch = make_actor(), make_batch()
    with torch.no_grad():
        actor.policy.weight.mul_(3)
        for side in ("chosen", "rejected"):  # the first three pairs are as the policy would play: at the limit
            greedy = actor.policy_parameters(batch[side, "observation"])[0].argmax(dim=-1)
            batch[side, "action"][:3] = greedy[:3]
    weights = trl_weights(actor, batch).detach()
    assert (weights[:3] == 1).all()
    assert (weights < 0.9).any()
    for options in ({}, {"discount": 0.9}, {"loss_type": "simpo"}):
        plain = PreferenceLoss(actor, reduction="none", **options)(batch)["loss"]
        weighted = PreferenceLoss(actor, reduction="none", use_weighting=True, **options)(batch)["loss"]
        torch.testing.assert_close(weighted, weights * plain)


def test_weights_of_pairs_have_no_gradient(make_actor, make_batch):
    actor, batch = make_actor(), make_batch()
    _, found = gradients(PreferenceLoss(actor, use_weighting=True), batch)
    losses = PreferenceLoss(actor, reduction="none")(batch)["loss"]
    expected = torch.autograd.grad(
        (trl_weights(actor, batch).detach() * losses).mean(), [*actor.body.parameters(), *actor.policy.parameters()]
    )
    torch.testing.assert_close(found, list(expected))


@pytest.mark.parametrize("kind", ["normal", "factorised_normal"])
def test_weights_of_continuous_actions_are_relative_to_the_mean_density(kind, make_actor, make_batch):
    actor, batch = make_actor(kind), make_batch(kind=kind)
    scores = []
    for side in ("chosen", "rejected"):
        means = []
        for row in batch[side]:
            steps = row[row["mask"]]
            base = actor.get_dist(steps.select("observation"))
            loc, scale = base.mean, base.stddev
            mean_density = (4 * torch.pi * scale**2).rsqrt().prod(-1)
            density = torch.distributions.Normal(loc, scale).log_prob(steps["action"]).exp().prod(-1)
            means.append((density / mean_density).log().mean())
        scores.append(torch.stack(means))
    expected = (scores[0] + scores[1]).exp().clamp(max=1)
    plain = PreferenceLoss(actor, reduction="none")(batch)["loss"]
    weighted = PreferenceLoss(actor, reduction="none", use_weighting=True)(batch)["loss"]
    torch.testing.assert_close(weighted, expected * plain, rtol=1e-4, atol=1e-6)


def test_weights_are_for_pairs_and_for_densities_with_a_closed_mean(make_actor, make_batch):
    with pytest.raises(ValueError, match="aot sorts its batch, so its losses are of no pair, got use_weighting"):
        PreferenceLoss(make_actor(), loss_type="aot", use_weighting=True)
    loss = PreferenceLoss(make_actor("tanh_normal"), use_weighting=True)
    with pytest.raises(TypeError, match=r"must be categorical or normal, or have log_mean_density\(\), got TanhNormal"):
        loss(make_batch(kind="tanh_normal"))


def test_orpo_clones_the_chosen_as_its_paper_does(make_actor, make_batch):
    actor, batch = make_actor(), make_batch()
    without = PreferenceLoss(actor, loss_type="orpo", nll_coef=0.0)(batch)
    torch.testing.assert_close(
        PreferenceLoss(actor, loss_type="orpo")(batch)["loss"], without["loss"] + without["nll_loss"]
    )


def test_an_entropy_without_a_closed_form_is_estimated(make_actor, make_batch):
    actor = make_actor("tanh_normal")
    out = PreferenceLoss(actor, entropy_coef=0.1)(make_batch(num=40, kind="tanh_normal"))
    assert out["entropy"].isfinite()
    out["loss"].backward()
    assert all(parameter.grad.isfinite().all() for parameter in actor.parameters())


@pytest.mark.parametrize("loss_type", ["simpo", "orpo", "sft"])
def test_reference_free_losses_read_no_reference(loss_type, make_actor, make_batch):
    loss, batch = PreferenceLoss(make_actor(), loss_type=loss_type), make_batch()
    bare = TensorDict({side: batch[side].exclude("reference_log_prob") for side in ("chosen", "rejected")}, [7])
    torch.testing.assert_close(loss(bare), loss(batch))
    assert ("chosen", "reference_log_prob") not in loss.in_keys


def test_a_reference_free_loss_is_that_of_a_uniform_reference(make_actor, make_batch):
    actor, batch = make_actor(), make_batch()
    free = PreferenceLoss(actor, reference_free=True)(batch)
    for side in ("chosen", "rejected"):
        batch[side, "reference_log_prob"].zero_()
    torch.testing.assert_close(free, PreferenceLoss(actor)(batch))


def test_keys_can_be_renamed(make_actor, make_batch):
    loss, batch = PreferenceLoss(make_actor()), make_batch()
    expected = loss(batch)
    for side in ("chosen", "rejected"):
        batch[side].rename_key_("action", "move").rename_key_("reference_log_prob", "old")
    batch.rename_key_("chosen", "good").rename_key_("rejected", "bad")
    loss.set_keys(action="move", reference_log_prob="old", chosen="good", rejected="bad")
    torch.testing.assert_close(loss(batch), expected)
    assert loss.in_keys == [(side, key) for side in ("good", "bad") for key in ("observation", "move", "old")]


def test_a_call_by_keywords_is_a_call_by_tensordict(make_actor, make_batch):
    loss, batch = PreferenceLoss(make_actor()), make_batch(full=True)
    values = loss(**{"_".join(key): batch[key] for key in loss.in_keys})
    torch.testing.assert_close(values[0], loss(batch)["loss"])


@pytest.mark.parametrize("kind", ["direct", "categorical"])
def test_copies_are_the_same_and_apart(kind, make_actor, make_batch):
    loss, batch = PreferenceLoss(make_actor(kind), reference_network="copy"), make_batch(kind=kind)
    expected = loss(batch)
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        torch.testing.assert_close(other(batch), expected)
        for parameter in other.parameters():
            parameter.data.add_(1.0)
        assert not torch.allclose(other(batch)["loss"], expected["loss"])
        torch.testing.assert_close(loss(batch), expected)


@pytest.mark.parametrize("kind", ["direct", "categorical", "normal"])
def test_compiles_without_a_graph_break(kind, make_actor, make_batch):
    loss, batch = PreferenceLoss(make_actor(kind), nll_coef=0.1), make_batch(kind=kind, filling=float("nan"))
    expected, expected_gradients = gradients(loss, batch)
    compiled = torch.compile(lambda tensordict: loss(tensordict)["loss"], fullgraph=True, backend="aot_eager")
    for parameter in loss.parameters():
        parameter.grad = None
    value = compiled(batch.clone())
    torch.testing.assert_close(value, expected["loss"])
    value.backward()
    found = [parameter.grad for parameter in loss.parameters() if parameter.grad is not None]
    torch.testing.assert_close(found, expected_gradients, rtol=1e-4, atol=1e-6)
    torch._dynamo.reset()


@pytest.mark.parametrize("kind", ["direct", "categorical", "normal"])
def test_bfloat16_is_finite_and_close(kind, make_actor, make_batch):
    actor, batch = make_actor(kind), make_batch(kind=kind)
    loss = PreferenceLoss(actor)
    expected = loss(batch)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        out = loss(batch)
    assert out["loss"].dtype == torch.float32
    torch.testing.assert_close(out["loss"], expected, rtol=0, atol=2e-2)
    out["loss"].backward()
    assert all(each.grad.isfinite().all() for each in actor.parameters() if each.grad is not None)
    half = loss.to(torch.bfloat16)
    for side in ("chosen", "rejected"):
        batch[side, "observation"] = batch[side, "observation"].bfloat16()
        batch[side, "action"] = batch[side, "action"].bfloat16() if kind == "normal" else batch[side, "action"]
    torch.testing.assert_close(half(batch)["loss"].float(), expected, rtol=0, atol=3e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_type": "kto"}, "loss_type kto takes single segments; use KTOLoss"),
        ({"loss_type": "rlhf"}, "loss_type must be one of sigmoid, "),
        ({"loss_type": ["sigmoid", "ipo"], "loss_weights": [1.0]}, r"loss_weights must be as many as loss types, got"),
        ({"loss_type": "hinge", "label_smoothing": 0.1}, r"label_smoothing is read by sigmoid, .*, got it for hinge"),
        ({"loss_type": "simpo", "length_normalize": False}, "simpo is made of averages, got length_normalize=False"),
        ({"loss_type": "simpo", "reference_network": "copy"}, "simpo reads no reference here, got one; leave it out"),
        ({"reference_sync_interval": 5}, "a reference must be held to be updated, got reference_sync_interval=5"),
        ({"reference_network": "frozen"}, "reference_network must be \"copy\" or a policy, got 'frozen'"),
        ({"beta": -1.0}, "beta must be above 0, got -1.0"),
        ({"value_coef": -1.0}, "value_coef must be at least 0, got -1.0"),
        ({"discount": 1.5}, r"discount must be in \[0, 1\], got 1.5"),
        ({"discopop_tau": 0.0}, "discopop_tau must be above 0, got 0.0"),
    ],
)
def test_wrong_options_are_named(options, message, make_actor):
    with pytest.raises(ValueError, match=message):
        PreferenceLoss(make_actor(), **options)


def test_networks_that_yield_no_policy_or_no_value_are_named(make_actor):
    with pytest.raises(TypeError, match=r"actor_network must be a torchrl ProbabilisticActor, .* got Linear; wrap"):
        PreferenceLoss(nn.Linear(5, 3))
    with pytest.raises(TypeError, match=r"value_coef needs a critic_network that writes state_value, .* alone"):
        PreferenceLoss(make_actor("categorical"), value_coef=0.5)
    critic = TensorDictModule(nn.Linear(5, 1), ["observation"], ["state_value"])
    with pytest.raises(ValueError, match="critic_network is trained by value_coef, got 0; set value_coef or leave"):
        PreferenceLoss(make_actor("categorical"), critic)


def test_wrong_batches_are_named(make_actor, make_batch):
    loss = PreferenceLoss(make_actor("categorical"))
    batch = make_batch(kind="categorical")
    with pytest.raises(
        KeyError, match=r"expected the key 'rejected', the batch has \['chosen'\]; rename keys with set"
    ):
        loss(batch.select("chosen"))
    with pytest.raises(KeyError, match=r"expected the key 'reference_log_prob', the batch has"):
        loss(batch.exclude(("rejected", "reference_log_prob")))
    with pytest.raises(ValueError, match=r"chosen must have the batch shape \[P, T\], got \(7,\)"):
        loss(TensorDict({"chosen": batch["chosen"][:, 0], "rejected": batch["rejected"]}, [7]))
    with pytest.raises(ValueError, match=r"mask of rejected must have the shape \(7, 9\), got \(7, 9, 2\)"):
        loss(batch.clone().set(("rejected", "mask"), torch.ones(7, 9, 2, dtype=torch.bool)))
    with pytest.raises(ValueError, match=r"chosen, rejected and label must be equally many, got 7, 7 and 3"):
        loss(TensorDict({"chosen": batch["chosen"], "rejected": batch["rejected"], "label": torch.ones(3)}, []))
    with pytest.raises(ValueError, match=r"label must be in \[0, 1\], got .*nan.*; train on pairs.labelled\(\)"):
        loss(batch.clone().set("label", torch.full((7,), torch.nan)))
    flat = batch.clone()
    for side in ("chosen", "rejected"):
        flat[side, "action"] = flat[side, "action"].unsqueeze(-1)
    with pytest.raises(ValueError, match=r"the policy must return one log-probability per step .*; drop singleton"):
        loss(flat)
    with pytest.raises(ValueError, match="aot sorts its batch and has no place for ties, got labels; drop ties"):
        PreferenceLoss(make_actor("categorical"), loss_type="aot")(batch.clone().set("label", torch.full((7,), 0.5)))
