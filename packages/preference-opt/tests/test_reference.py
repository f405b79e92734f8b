"""The reference policy: frozen, synchronised, averaged, restored; and its log-probs, computed before."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torch.distributions import Categorical
from torchrl.modules import GRUModule, ProbabilisticActor

from tesserl_preference_data import PreferencePairs, cut_segments, make_pairs
from tesserl_preference_opt import PreferenceLoss, evaluate_pairs, precompute_reference_log_probs


def move(network, by=1.0):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(by)


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("kind", ["direct", "categorical"])
def test_a_held_reference_gives_the_loss_of_its_log_probs_in_the_pairs(kind, make_actor, make_batch):
    actor, batch = make_actor(kind), make_batch(kind=kind)
    pairs = PreferencePairs.from_segments(batch["chosen"], batch["rejected"])
    stored = precompute_reference_log_probs(pairs, actor, chunk_size=10)
    held = PreferenceLoss(actor, reference_network="copy")
    read = PreferenceLoss(actor)
    move(actor, 0.1)
    torch.testing.assert_close(held(batch), read(stored[:]))
    assert not torch.allclose(read(pairs[:])["loss"], held(batch)["loss"])  # those that came with the batch


def test_a_frozen_reference_stays_and_gets_no_gradient(make_actor, make_batch):
    loss, batch = PreferenceLoss(make_actor(), reference_network="copy"), make_batch()
    before = weights(loss.reference)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    for _ in range(3):
        loss(batch)["loss"].backward()
        optimizer.step()
        loss.update_reference()
    assert torch.equal(weights(loss.reference), before)
    assert all(parameter.grad is None for parameter in loss.reference.parameters())
    assert not torch.equal(weights(loss.actor_network), before)


def test_the_reference_is_in_the_state_dict_and_not_among_the_parameters(make_actor):
    loss = PreferenceLoss(make_actor(), reference_network="copy")
    names = [name for name, _ in loss.named_parameters()]
    assert names
    assert not [name for name in names if name.startswith("reference")]
    assert len(list(loss.parameters())) == len(list(loss.actor_network.parameters()))
    state = loss.state_dict()
    assert "reference.num_steps" in state
    assert len([name for name in state if name.startswith("reference.network.")]) == len(names)


def test_a_synchronised_reference_copies_the_policy_every_so_many_updates(make_actor):
    loss = PreferenceLoss(make_actor(), reference_network="copy", reference_sync_interval=3)
    start = weights(loss.reference)
    for update in range(1, 8):
        move(loss.actor_network)
        loss.update_reference()
        torch.testing.assert_close(weights(loss.reference), start + 3 * (update // 3))
    assert loss.reference.num_steps.item() == 7


def test_a_moving_average_moves_by_its_rate(make_actor):
    reference_options = {"reference_sync_interval": 1, "reference_update_rate": 0.25}
    loss = PreferenceLoss(make_actor(), reference_network="copy", **reference_options)
    start = weights(loss.reference)
    move(loss.actor_network)
    for expected in (0.25, 0.4375, 0.578125):
        loss.update_reference()
        torch.testing.assert_close(weights(loss.reference), start + expected)


def test_a_restored_reference_goes_on_where_it_was(make_actor, make_batch):
    options = {"reference_network": "copy", "reference_sync_interval": 2}
    first, second = PreferenceLoss(make_actor(), **options), PreferenceLoss(make_actor(seed=1), **options)
    move(first.actor_network)
    first.update_reference()
    second.load_state_dict(first.state_dict())
    batch = make_batch()
    torch.testing.assert_close(second(batch), first(batch))
    for loss in (first, second):
        loss.update_reference()  # the second of two: now it follows
    torch.testing.assert_close(weights(second.reference), weights(second.actor_network))
    torch.testing.assert_close(second(batch), first(batch))


def test_the_reference_never_trains(make_actor):
    loss = PreferenceLoss(make_actor(), reference_network="copy")
    loss.train()
    assert loss.actor_network.training
    assert not loss.reference.network.training


def test_another_policy_can_be_the_reference(make_actor, make_batch):
    actor, other, batch = make_actor(), make_actor(seed=1), make_batch()
    loss = PreferenceLoss(actor, reference_network=other)
    assert loss(batch)["rewards/margins"].item() != 0.0
    assert PreferenceLoss(actor, reference_network="copy")(batch)["rewards/margins"].item() == 0.0
    before = weights(loss.reference)
    move(other)
    assert torch.equal(weights(loss.reference), before)


def test_computing_before_leaves_each_part_in_its_mode(make_actor, make_batch):
    actor, batch = make_actor("categorical").train(), make_batch(kind="categorical")
    parts = list(actor.modules())
    parts[-1].eval()  # such as an encoder that is frozen
    modes = [part.training for part in parts]
    assert len(set(modes)) == 2
    pairs = PreferencePairs.from_segments(batch["chosen"], batch["rejected"])
    stored = precompute_reference_log_probs(pairs, actor)
    assert [part.training for part in parts] == modes
    evaluate_pairs(PreferenceLoss(actor), [stored[:]])
    assert [part.training for part in parts] == modes


@pytest.mark.parametrize("chunk_size", [1, 7, 1000])
def test_precomputed_log_probs_are_those_of_each_step_whatever_the_chunks(chunk_size, make_actor, make_trajectories):
    actor = make_actor("categorical").train()
    pool = cut_segments(make_trajectories(6), segment_length=(3, 9), generator=torch.Generator().manual_seed(0))
    pairs = make_pairs(pool, num_pairs=5, generator=torch.Generator().manual_seed(0))
    stored = precompute_reference_log_probs(pairs, actor, chunk_size=chunk_size)
    assert actor.training
    steps = stored.pool.blocks[0].steps
    expected = actor.get_dist(TensorDict({"observation": steps["observation"]}, [len(steps)])).log_prob(steps["action"])
    torch.testing.assert_close(steps["reference_log_prob"], expected.detach())
    assert not steps["reference_log_prob"].requires_grad
    assert "reference_log_prob" not in pairs.pool.keys
    assert stored.pool.blocks[0].steps["observation"] is pairs.pool.blocks[0].steps["observation"]


def recurrent_actor():
    torch.manual_seed(0)
    gru = GRUModule(input_size=5, hidden_size=7, in_key="observation", out_key="features", default_recurrent_mode=True)
    head = TensorDictModule(nn.Linear(7, 3), ["features"], ["logits"])
    return ProbabilisticActor(
        TensorDictSequential(gru, head), in_keys=["logits"], distribution_class=Categorical, return_log_prob=True
    )


def with_state(segments):
    shape = segments.batch_size
    is_init = torch.zeros(*shape, 1, dtype=torch.bool)
    is_init[:, 0] = True
    return segments.clone().update({"is_init": is_init, "recurrent_state": torch.zeros(*shape, 1, 7)})


def test_a_recurrent_policy_runs_over_whole_segments(make_batch):
    actor, batch = recurrent_actor(), make_batch(kind="categorical")
    batch = TensorDict({side: with_state(batch[side]) for side in ("chosen", "rejected")}, [7])
    batch["chosen", "observation"][~batch["chosen", "mask"]] = torch.nan
    batch["chosen", "action"][~batch["chosen", "mask"]] = -7
    loss = PreferenceLoss(actor, reference_free=True, beta=0.5)
    out = loss(batch)
    out["loss"].backward()
    assert all(parameter.grad.isfinite().all() for parameter in actor.parameters())
    row = batch["rejected"][2]
    alone = row[row["mask"]].unsqueeze(0).select("observation", "is_init", "recurrent_state")
    log_prob = actor.get_dist(alone).log_prob(row["action"][row["mask"]].unsqueeze(0)).sum()
    single = TensorDict({side: batch[side][2:3] for side in ("chosen", "rejected")}, [1])
    torch.testing.assert_close(loss(single)["logps/rejected"], log_prob.detach())


@pytest.mark.parametrize("chunk_size", [1, 20, 1000])
def test_a_recurrent_reference_is_precomputed_over_whole_segments(chunk_size, make_batch):
    actor, batch = recurrent_actor(), make_batch(kind="categorical")
    sides = [with_state(batch[side]) for side in ("chosen", "rejected")]
    pairs = PreferencePairs.from_segments(*sides)
    stored = precompute_reference_log_probs(pairs, actor, chunk_size=chunk_size)
    held = PreferenceLoss(actor, reference_network="copy")
    read = PreferenceLoss(actor)
    move(actor, 0.05)
    torch.testing.assert_close(
        read(stored[:]), held(TensorDict(dict(zip(("chosen", "rejected"), sides, strict=True)), [7]))
    )


def test_wrong_arguments_are_named(make_actor, make_batch):
    actor, batch = make_actor(), make_batch()
    with pytest.raises(TypeError, match="actor_network must be a torchrl ProbabilisticActor"):
        PreferenceLoss(actor, reference_network=nn.Linear(2, 2))
    pairs = PreferencePairs.from_segments(batch["chosen"], batch["rejected"])
    with pytest.raises(ValueError, match="chunk_size must be at least 1, got 0"):
        precompute_reference_log_probs(pairs, actor, chunk_size=0)
