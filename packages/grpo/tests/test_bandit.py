"""A bandit with a state, end to end: groups of one-step trajectories, no critic, and every answer is learned."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torch.distributions import Categorical

from tesserl_grpo import GRPOLoss, flatten_steps, pad_trajectories, score_groups, step_weights
from tesserl_policy import ReferencePolicy

NUM_STATES, NUM_ARMS, GROUP_SIZE = 9, 5, 8
BEST = torch.arange(NUM_STATES) * 2 % NUM_ARMS


class Policy(nn.Module):
    in_keys = ("observation",)

    def __init__(self):
        super().__init__()
        self.logits = nn.Linear(NUM_STATES, NUM_ARMS)

    def policy_parameters(self, observation):
        return (self.logits(observation),)

    def distribution(self, logits):
        return Categorical(logits=logits, validate_args=False)


def groups(policy):
    """Pull an arm eight times in each state; the best arm pays 1 plus noise."""
    state = torch.arange(NUM_STATES).repeat_interleave(GROUP_SIZE)
    observation = nn.functional.one_hot(state, NUM_STATES).float()
    with torch.no_grad():
        distribution = policy.distribution(*policy.policy_parameters(observation))
        action = distribution.sample()
        log_probs = distribution.log_prob(action)
    reward = (action == BEST[state]).float() + 0.1 * torch.randn(len(state))
    step = {"reward": reward.unsqueeze(-1), "terminated": torch.ones(len(state), 1, dtype=torch.bool)}
    entries = {"observation": observation, "action": action, "action_log_prob": log_probs, "next": step}
    steps = TensorDict(entries, [len(state)])
    return pad_trajectories(steps.split(1), state)


CASES = {
    "deepseek": {"scale": "group", "kl_coef": 0.01},
    "exact divergence": {"kl_coef": 0.01, "kl_kind": "exact"},
    "dapo": {"scale": "group", "reduction": "dapo", "clip_epsilon_high": 0.28},
    "dr grpo": {"reduction": "dr_grpo", "max_length": 1},
    "gspo": {"importance_level": "trajectory"},
    "cispo": {"kind": "cispo"},
    "sapo": {"kind": "sapo"},
    "gspo-token": {"importance_level": "trajectory_step"},
    "reinforce": {"kind": "reinforce", "num_epochs": 1},
    "leave one out": {"baseline": "leave_one_out", "credit": "to_go"},
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_the_greedy_policy_is_always_right(options):
    torch.manual_seed(1)
    options = dict(options)
    scoring = {name: options.pop(name) for name in ("scale", "baseline", "credit") if name in options}
    num_epochs, level = options.pop("num_epochs", 3), options.get("importance_level", "step")
    policy = Policy()
    reference = ReferencePolicy(policy, interval=10) if "kl_coef" in options else None
    loss = GRPOLoss(policy, entropy_coef=0.001, reference=reference, **options)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    for _ in range(30):
        batch = score_groups(groups(policy), **scoring).batch
        weights = {name: options[name] for name in ("reduction", "max_length") if name in options}
        batch["step_weight"] = step_weights(batch["mask"], **weights)
        data = flatten_steps(batch) if level == "step" else batch
        for _ in range(num_epochs):
            for minibatch in data[torch.randperm(len(data))].split(24):
                losses = loss(minibatch)
                sum(value for key, value in losses.items() if key.startswith("loss")).backward()
                optimizer.step()
                optimizer.zero_grad()
        if reference is not None:
            reference.step(policy)
    with torch.no_grad():
        greedy = policy.policy_parameters(torch.eye(NUM_STATES))[0].argmax(dim=-1)
    assert (greedy == BEST).float().mean() == 1.0


def test_an_untrained_policy_is_not():
    torch.manual_seed(1)
    with torch.no_grad():
        greedy = Policy().policy_parameters(torch.eye(NUM_STATES))[0].argmax(dim=-1)
    assert (greedy == BEST).float().mean() < 0.5
