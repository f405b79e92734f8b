"""KTOLoss: the reference point from mismatched actions, good and bad segments, and pairs taken as such."""

import math

import pytest
import torch
from tensordict import TensorDict

from tesserl_preference_opt import KTOLoss, kto_loss
from tesserl_preference_opt.functional import bco_loss


def log_probs(actor, observation, action):
    return actor.distribution(*actor.policy_parameters(observation)).log_prob(action)


@pytest.fixture
def moved(make_actor):
    """A loss whose policy has left its reference."""

    def build(**options):
        loss = KTOLoss(make_actor(), **options)
        generator = torch.Generator().manual_seed(6)
        with torch.no_grad():
            for parameter in loss.actor_network.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        return loss

    return build


def single(make_segments, *, full):
    torch.manual_seed(8)
    desirable = torch.tensor([True, False, True, True, False])
    return TensorDict({"trajectory": make_segments(5, 7, full=full), "desirable": desirable}, [5])


def by_hand(loss, batch):
    """Loss and reference point, segment by segment."""
    policy, reference = loss.actor_network, loss.reference.network
    segments = [row[row["mask"]] for row in batch["trajectory"]]
    own, held, ratios = [], [], []
    for number, segment in enumerate(segments):
        other = segments[(number + 1) % len(segments)]["action"]
        elsewhere = torch.stack([other[step % len(other)] for step in range(len(segment))])
        observation = segment["observation"]
        own.append(log_probs(policy, observation, segment["action"]).sum())
        held.append(log_probs(reference, observation, segment["action"]).sum())
        ratios.append((log_probs(policy, observation, elsewhere) - log_probs(reference, observation, elsewhere)).sum())
    kl = torch.stack(ratios).mean().clamp_min(0).detach()
    arguments = (torch.stack(own), torch.stack(held), batch["desirable"], kl)
    options = {"beta": loss.beta, "desirable_weight": loss.desirable_weight}
    return kto_loss(*arguments, **options).mean(), kl, loss.beta * (arguments[0] - arguments[1])


@pytest.mark.parametrize("full", [True, False])
def test_the_loss_is_the_formula_with_the_kl_of_mismatched_actions(full, moved, make_segments):
    loss, batch = moved(beta=0.5, desirable_weight=1.3), single(make_segments, full=full)
    out = loss(batch)
    expected, kl, rewards = by_hand(loss, batch)
    torch.testing.assert_close(out["loss"], expected)
    torch.testing.assert_close(out["kl"], kl)
    torch.testing.assert_close(out["rewards/chosen"], rewards[batch["desirable"]].mean())
    torch.testing.assert_close(out["rewards/rejected"], rewards[~batch["desirable"]].mean())
    assert set(loss.out_keys) == set(out.keys())


def test_the_kl_is_above_zero_for_some_batch_and_has_no_gradient(moved, make_segments):
    loss = moved()
    points = []
    for seed in range(50):
        torch.manual_seed(seed)
        batch = TensorDict({"trajectory": make_segments(5, 7), "desirable": torch.ones(5, dtype=torch.bool)}, [5])
        points.append(loss(batch)["kl"])
    assert any(point > 0 for point in points)
    assert not any(point.requires_grad for point in points)


def test_at_the_reference_every_segment_pays_one_half(make_actor, make_segments):
    out = KTOLoss(make_actor())(single(make_segments, full=False))
    assert out["loss"].item() == pytest.approx(0.5)
    assert out["kl"].item() == 0.0


def test_pairs_are_good_and_bad_segments(moved, make_batch):
    loss, batch = moved(), make_batch()
    one = TensorDict(
        {
            "trajectory": torch.cat([batch["chosen"], batch["rejected"]]),
            "desirable": torch.tensor([True] * 7 + [False] * 7),
        },
        [14],
    )
    torch.testing.assert_close(loss(batch), loss(one))


def test_descent_makes_good_segments_likelier_and_bad_ones_less(make_actor, make_segments):
    loss, batch = KTOLoss(make_actor(), beta=0.5), single(make_segments, full=False)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        loss(batch)["loss"].backward()
        optimizer.step()
    out = loss(batch)
    assert out["rewards/chosen"] > 0.1
    assert out["rewards/rejected"] < -0.1


def sums(loss, batch):
    """Log-probs of the segments under the policy and the reference, and which are good."""
    policy, reference = loss.actor_network, loss.reference.network
    rows = [row[row["mask"]] for row in batch["trajectory"]]
    own, held = (
        torch.stack([log_probs(network, row["observation"], row["action"]).sum() for row in rows])
        for network in (policy, reference)
    )
    return own, held.detach(), batch["desirable"].double()


def test_without_a_reference_point_it_is_apo_zero_of_single_segments(moved, make_segments):
    loss, batch = (
        moved(loss_type="apo_zero_unpaired", beta=0.5, undesirable_weight=2.0),
        single(make_segments, full=False),
    )
    out = loss(batch)
    own, held, good = sums(loss, batch)
    rewards = 0.5 * (own - held)
    expected = (good * (1 - rewards.sigmoid()) + (1 - good) * 2.0 * rewards.sigmoid()).mean()
    torch.testing.assert_close(out["loss"], expected.to(out["loss"].dtype))
    assert "kl" not in set(out.keys())
    assert set(loss.out_keys) == set(out.keys())


def test_bco_compares_with_the_mean_of_all_rewards_of_training(moved, make_segments):
    loss = moved(loss_type="bco", beta=0.5)
    seen = []
    for number in range(3):
        batch = single(make_segments, full=False)
        batch["desirable"] = batch["desirable"].roll(number)
        own, held, good = sums(loss, batch)
        rewards = 0.5 * (own - held)
        seen.append(rewards.detach())
        shift = torch.cat(seen).mean()
        sign = 2 * good - 1
        expected = -torch.nn.functional.logsigmoid(sign * (rewards - shift)).mean()
        torch.testing.assert_close(loss(batch)["loss"], expected.to(torch.float32))
        with torch.no_grad():
            next(loss.actor_network.parameters()).add_(0.1)
    state = loss.state_dict()
    assert int(state["reward_count"]) == 15
    loss.eval()(batch)
    assert int(loss.reward_count) == 15  # evaluation moves nothing
    hand = bco_loss(torch.tensor([1.0, -2.0]), torch.zeros(2), torch.tensor([True, False]), 0.25, beta=0.5)
    torch.testing.assert_close(hand, torch.tensor([math.log1p(math.exp(-0.25)), math.log1p(math.exp(-1.25))]))


def test_masked_steps_change_nothing(moved, make_segments):
    loss, batch = moved(), single(make_segments, full=False)
    filled = batch.clone()
    padding = ~filled["trajectory", "mask"]
    filled["trajectory", "observation"][padding] = torch.nan
    filled["trajectory", "action"][padding] = -7
    torch.testing.assert_close(loss(filled), loss(batch))


def test_compiles_without_a_graph_break(moved, make_segments):
    loss, batch = moved(), single(make_segments, full=True)
    compiled = torch.compile(lambda tensordict: loss(tensordict)["loss"], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(batch.clone()), loss(batch)["loss"])
    torch._dynamo.reset()


def test_wrong_arguments_are_named(make_actor, make_segments):
    with pytest.raises(ValueError, match="loss_type must be one of kto, apo_zero_unpaired, bco, got 'sigmoid'"):
        KTOLoss(make_actor(), loss_type="sigmoid")
    with pytest.raises(ValueError, match="beta must be above 0, got 0"):
        KTOLoss(make_actor(), beta=0)
    with pytest.raises(ValueError, match=r"discount must be in \[0, 1\], got -0.5"):
        KTOLoss(make_actor(), discount=-0.5)
    with pytest.raises(ValueError, match='reference_network must be "copy" or a policy, got None'):
        KTOLoss(make_actor(), reference_network=None)
    with pytest.raises(ValueError, match="a batch must have two segments or more, got 1: KL needs others' actions"):
        KTOLoss(make_actor())(single(make_segments, full=True)[:1])
    with pytest.raises(KeyError, match=r"expected the key 'desirable', the batch has \['trajectory'\]"):
        KTOLoss(make_actor())(single(make_segments, full=True).select("trajectory"))
