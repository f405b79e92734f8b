"""torchrl's contract on the loss, and the published formula is the one that trains."""

import pytest
import torch

from tesserl_grpo import GRPOLoss, group_policy_loss, step_weights
from tesserl_policy import ReferencePolicy
from tesserl_policy.testing import check_loss_contract

OPTIONS = {
    "all terms": {"kl_coef": 0.3, "entropy_coef": 0.02, "reduction": "dapo"},
    "trajectories": {"importance_level": "trajectory", "clip_epsilon": 0.01, "entropy_coef": 0.02, "kl_coef": 0.1},
    "none": {"kl_coef": 0.3, "entropy_coef": 0.02, "reduction": "none", "log_metrics": False},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("as_torchrls", [False, True])
def test_the_loss_keeps_torchrls_contract(options, as_torchrls, policy, as_actor, make_batch):
    actor = as_actor(policy) if as_torchrls else policy
    state = {name: value.clone() for name, value in actor.state_dict().items()}

    def make():
        actor.load_state_dict(state)
        reference = ReferencePolicy(actor)
        with torch.no_grad():
            for parameter in reference.parameters():
                parameter.mul_(1.5)
        return GRPOLoss(actor, reference=reference, **options)

    check_loss_contract(make, make_batch((5, 5, 5, 5)).exclude("reference_log_prob", "mask"))


@pytest.mark.parametrize("kind", ["clip", "reinforce", "cispo", "sapo"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_the_published_formula(kind, weighted, policy, make_batch):
    batch = make_batch((4, 2, 3, 1), padding=float("nan"))
    if weighted:
        batch["step_weight"] = step_weights(batch["mask"], reduction="dapo")
    options = {"kind": kind, "clip_epsilon_high": 0.3, "top_entropy_fraction": 0.5}
    found = GRPOLoss(policy, **options)(batch)["loss_objective"]
    observation = batch["observation"].nan_to_num()
    distribution = policy.distribution(*policy.policy_parameters(observation))
    log_probs = distribution.log_prob(batch["action"].clamp(min=0))
    expected = group_policy_loss(
        log_probs.masked_fill(~batch["mask"], float("nan")),
        batch["action_log_prob"],
        batch["advantage"].squeeze(-1),
        batch["mask"],
        entropy=distribution.entropy(),
        weights=batch.get("step_weight", None),
        **options,
    )
    torch.testing.assert_close(found, expected)
    assert found.isfinite()


def test_weights_have_the_shape_of_the_steps():
    zeros = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"weights must have the shape of log_probs \(2, 3\), got \(2,\)"):
        group_policy_loss(zeros, zeros, zeros, weights=torch.zeros(2))


def test_a_schedule_may_turn_terms_on_and_off(policy, make_batch):
    loss, batch = GRPOLoss(policy), make_batch((3, 3))
    assert "loss_entropy" not in loss(batch).keys()  # noqa: SIM118
    loss.entropy_coef = 0.1
    assert "loss_entropy" in loss(batch).keys()  # noqa: SIM118
    loss.entropy_coef.fill_(0.0)
    assert set(loss.out_keys) == set(loss(batch).keys())
