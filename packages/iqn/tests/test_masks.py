"""Forbidden actions: never chosen, never bootstrapped on, without weight in the Munchausen policy."""

import math

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from tesserl_iqn import QuantileNetwork, QuantilePolicy

ALLOWED = torch.tensor([[True, True, False]])


class Features(nn.Module):
    """A body, or a head, that returns its input, with a parameter to train."""

    in_keys, out_features = ("observation",), 3

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, observation):
        return observation * self.factor


class Ones(nn.Module):
    """An embedding that leaves the features as they are."""

    def forward(self, taus):
        return torch.ones_like(taus).unsqueeze(-1)


@pytest.fixture
def exact_loss(make_loss):
    """Build a loss around a network whose quantiles are its observations."""

    def build(**options):
        made = QuantileNetwork(Features(), 3, head=Features())
        made.embedding = Ones()
        return make_loss(made, discount=0.9, **options)

    return build


def transition(next_mask=ALLOWED, terminated=False):
    return TensorDict(
        {
            "observation": torch.tensor([[1.0, 3.0, 9.0]]),
            "action_mask": ALLOWED,
            "action": torch.tensor([0]),
            "next": {
                "observation": torch.tensor([[2.0, 1.0, 7.0]]),
                "action_mask": next_mask,
                "reward": torch.tensor([[0.5]]),
                "terminated": torch.tensor([[terminated]]),
            },
        },
        [1],
    )


@pytest.mark.parametrize("double", [True, False])
def test_the_best_allowed_action_is_bootstrapped_on(exact_loss, double):
    batch = transition()
    exact_loss(double=double)(batch)
    assert batch["td_error"].item() == pytest.approx(0.5 + 0.9 * 2 - 1)  # 0.5 + 0.9 * 7 - 1 without the mask


@pytest.mark.parametrize("log_policy", ["target", "online"])
@pytest.mark.parametrize("temperature", [0.03, 2.0])
def test_the_munchausen_policy_has_allowed_actions_alone(exact_loss, log_policy, temperature):
    batch = transition()
    loss = exact_loss(
        munchausen_alpha=0.8,
        munchausen_temperature=temperature,
        munchausen_clip=-10.0,
        munchausen_log_policy=log_policy,
    )
    loss(batch)["loss"].backward()

    def log_policies(first, second):  # of two actions, times the temperature
        return [-temperature * math.log1p(math.exp(d / temperature)) for d in (second - first, first - second)]

    bonus = 0.8 * log_policies(1.0, 3.0)[0]
    following = log_policies(2.0, 1.0)
    soft = sum(math.exp(log / temperature) * (q - log) for log, q in zip(following, (2.0, 1.0), strict=True))
    assert batch["td_error"].item() == pytest.approx(abs(0.5 + bonus + 0.9 * soft - 1), rel=1e-5)
    assert all(parameter.grad.isfinite().all() for parameter in loss.value_network.parameters())


@pytest.mark.parametrize("options", [{}, {"double": False}, {"munchausen_alpha": 0.9}])
def test_a_terminal_state_may_forbid_everything(exact_loss, options):
    batch = transition(next_mask=~ALLOWED & ALLOWED, terminated=True)
    loss = exact_loss(**options)(batch)["loss"]
    assert loss.isfinite()
    assert batch["td_error"].isfinite().all()


def test_a_mask_without_that_of_the_next_state_is_refused(exact_loss):
    batch = transition()
    del batch["next", "action_mask"]
    with pytest.raises(KeyError, match="expected the key 'action_mask', the batch has"):
        exact_loss()(batch)


def test_masks_have_another_name_if_told(exact_loss):
    batch = transition()
    batch.rename_key_("action_mask", "legal")
    batch["next"].rename_key_("action_mask", "legal")
    loss = exact_loss()
    loss.set_keys(action_mask="legal")
    loss(batch)
    assert batch["td_error"].item() == pytest.approx(1.3)


@pytest.mark.parametrize("num_blocks", [None, 2])
@pytest.mark.parametrize("options", [{"epsilon": 0.5}, {"epsilon": 1.0}, {"temperature": 5.0}, {}])
def test_all_kinds_of_exploration_choose_allowed_actions_uniformly(num_blocks, options):
    torch.manual_seed(0)
    network = QuantileNetwork(Features(), 4, num_blocks=num_blocks, hidden_sizes=())
    policy = QuantilePolicy(network, mark_greedy=True, **options)
    blocks = () if num_blocks is None else (num_blocks,)
    mask = torch.rand(4000, *blocks, 4) < 0.5
    mask[..., 1] = True
    batch = TensorDict({"observation": torch.randn(4000, 3), "action_mask": mask}, [4000])
    for action in (policy.act(batch["observation"], mask), policy(batch)["action"]):
        assert mask.gather(-1, action.unsqueeze(-1)).all()
    if options == {"epsilon": 1.0}:
        counts = torch.bincount(action[mask.all(-1)].flatten(), minlength=4)
        assert counts.min() > 0.7 * counts.float().mean()
    if not options:
        assert batch["greedy"].all()
        best = batch["action_value"].masked_fill(~mask, -torch.inf).argmax(-1)
        assert torch.equal(batch["action"], best)
