"""The mean of a loss and its metrics over held-out pairs."""

import pytest
import torch

from tesserl_preference_data import PreferencePairs
from tesserl_preference_opt import CPLLoss, PreferenceLoss, evaluate_pairs
from tesserl_preference_opt.metrics import preference_metrics


@pytest.mark.parametrize("loss_class", [PreferenceLoss, CPLLoss])
def test_means_over_batches_of_unequal_size_are_those_of_one_batch(loss_class, make_actor, make_batch):
    batch = make_batch(num=11)
    label = torch.tensor([1.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5])
    pairs = PreferencePairs.from_segments(batch["chosen"], batch["rejected"], label=label)
    loss = loss_class(make_actor())
    whole = loss(pairs[:])
    found = evaluate_pairs(loss, pairs.minibatches(4, shuffle=False))
    for name in ("loss", "rewards/chosen", "rewards/margins", "rewards/accuracies", "logps/rejected"):
        assert found[name] == pytest.approx(whole[name].item(), abs=1e-5), name
    assert set(found) == set(whole.keys())


def test_evaluation_leaves_no_gradient_and_the_mode_as_it_was(make_actor, make_batch):
    actor, batch = make_actor(), make_batch()
    actor.body.append(torch.nn.Dropout(0.5))
    pairs = PreferencePairs.from_segments(batch["chosen"], batch["rejected"])
    loss = PreferenceLoss(actor)
    found = [evaluate_pairs(loss, pairs.minibatches(3, shuffle=False))["loss"] for _ in range(2)]
    assert found[0] == found[1]  # no dropout
    assert loss.training
    assert actor.training
    assert all(parameter.grad is None for parameter in actor.parameters())
    evaluate_pairs(loss.eval(), pairs.minibatches(3))
    assert not loss.training


def test_pairs_that_are_all_ties_have_no_accuracy(make_actor, make_batch):
    batch = make_batch()
    pairs = PreferencePairs.from_segments(batch["chosen"], batch["rejected"], label=torch.full((7,), 0.5))
    found = evaluate_pairs(PreferenceLoss(make_actor()), pairs.minibatches(3))
    assert "rewards/accuracies" not in found
    assert "rewards/margins" in found


def test_an_accuracy_counts_strictly_larger_rewards():
    rewards = torch.tensor([[1.0, 0.0, 2.0, 5.0], [0.5, 0.0, 3.0, 1.0]])
    found = preference_metrics(rewards, torch.zeros(2, 4))
    assert found["rewards/accuracies"].item() == 0.5
    assert found["rewards/margins"].item() == pytest.approx((0.5 + 0.0 - 1.0 + 4.0) / 4)
    label = torch.tensor([1.0, 1.0, 0.5, 0.5])
    assert preference_metrics(rewards, torch.zeros(2, 4), label)["rewards/accuracies"].item() == 0.5


def test_no_batches_are_an_error(make_actor):
    with pytest.raises(ValueError, match="there must be at least one batch of pairs, got none; hold out more pairs"):
        evaluate_pairs(PreferenceLoss(make_actor()), [])
