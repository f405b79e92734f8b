"""The reference policy inside of the loss."""

import torch
from torch import nn

from tesserl_grpo import GRPOLoss
from tesserl_policy import ReferencePolicy


def test_its_log_probabilities_are_those_of_the_batch(policy, as_actor, make_batch):
    batch = make_batch((4, 2, 3, 1), padding=float("nan")).exclude("reference_log_prob")
    for actor in (policy, as_actor(policy)):
        loss = GRPOLoss(actor, kl_coef=0.3, reference=ReferencePolicy(actor))
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.add_(0.1)
        computed = loss(batch)
        log_probs = loss.reference_log_probs(batch)
        assert log_probs.shape == (4, 4)
        assert not log_probs.requires_grad
        torch.testing.assert_close(loss(batch.copy().set("reference_log_prob", log_probs)), computed)
        assert computed["kl"] > 0


def test_a_loss_in_training_mode_leaves_its_reference_without_dropout(policy, make_batch):
    policy.network = nn.Sequential(policy.network, nn.Dropout(0.5))
    batch = make_batch((4, 2, 3, 1)).exclude("reference_log_prob")
    loss = GRPOLoss(policy, kl_coef=0.3, reference=ReferencePolicy(policy)).train()
    torch.testing.assert_close(loss.reference_log_probs(batch), loss.reference_log_probs(batch))
