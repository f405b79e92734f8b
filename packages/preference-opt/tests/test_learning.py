"""From pairs of a random policy to a better one: a contextual bandit and a corridor, in seconds."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torch.distributions import Categorical

from tesserl_preference_data import ScriptedTeacher, cut_segments, make_pairs
from tesserl_preference_opt import (
    BehaviorCloningLoss,
    CPLLoss,
    KTOLoss,
    PreferenceLoss,
    evaluate_pairs,
    precompute_reference_log_probs,
)

NUM_STATES, NUM_ACTIONS, LENGTH, LIMIT = 4, 3, 5, 12


class Table(nn.Module):
    """A policy with a row of logits for each state."""

    in_keys = ("observation",)

    def __init__(self, num_states, num_actions):
        super().__init__()
        self.logits = nn.Linear(num_states, num_actions, bias=False)
        nn.init.zeros_(self.logits.weight)

    def policy_parameters(self, observation):
        return (self.logits(observation),)

    def distribution(self, logits):
        return Categorical(logits=logits, validate_args=False)

    def probabilities(self):
        return self.logits.weight.T.softmax(dim=-1)


def bandit_episodes(num, generator):
    """Five contexts an episode; action ``state % 3`` is worth 1."""
    rows = []
    for _ in range(num):
        state = torch.randint(NUM_STATES, (5,), generator=generator)
        action = torch.randint(NUM_ACTIONS, (5,), generator=generator)
        reward = (action == state % NUM_ACTIONS).float().unsqueeze(-1)
        observation = nn.functional.one_hot(state, NUM_STATES).float()
        rows.append(TensorDict({"observation": observation, "action": action, "next": {"reward": reward}}, [5]))
    return rows


def corridor_episodes(num, generator):
    """Walk at random from one end to the other; every step costs 1, twelve at most."""
    rows = []
    for _ in range(num):
        position, states, actions = 0, [], []
        while position < LENGTH - 1 and len(states) < LIMIT:
            action = int(torch.randint(2, (), generator=generator))
            states.append(position)
            actions.append(action)
            position = max(0, position + 2 * action - 1)
        observation = nn.functional.one_hot(torch.tensor(states), LENGTH).float()
        following = {"reward": -torch.ones(len(states), 1)}
        rows.append(
            TensorDict({"observation": observation, "action": torch.tensor(actions), "next": following}, [len(states)])
        )
    return rows


def train(loss, pairs, *, updates, generator, learning_rate=0.1):
    optimizer = torch.optim.Adam(loss.parameters(), lr=learning_rate)
    done = 0
    while done < updates:
        for batch in pairs.minibatches(64, generator=generator):
            optimizer.zero_grad()
            loss(batch)["loss"].backward()
            optimizer.step()
            done += 1


LOSSES = {
    "dpo": lambda policy: PreferenceLoss(policy, beta=0.5),
    "dpo, a reference that follows": lambda policy: PreferenceLoss(policy, beta=0.5, reference_network="copy"),
    "ipo": lambda policy: PreferenceLoss(policy, loss_type="ipo", beta=0.5),
    "simpo": lambda policy: PreferenceLoss(policy, loss_type="simpo", beta=2.0),
    "orpo": lambda policy: PreferenceLoss(policy, loss_type="orpo", beta=2.0),
    "kto": lambda policy: KTOLoss(policy, beta=0.5),
    "cpl": lambda policy: CPLLoss(policy, alpha=0.5),
    "cpl, with cloning": lambda policy: CPLLoss(policy, alpha=0.5, bias=1.0, bc_coef=0.1),
}


@pytest.fixture(scope="module")
def bandit():
    generator = torch.Generator().manual_seed(0)
    pairs = make_pairs(cut_segments(bandit_episodes(400, generator)), num_pairs=600, generator=generator)
    return precompute_reference_log_probs(pairs, Table(NUM_STATES, NUM_ACTIONS)).split(0.2, generator=generator)


@pytest.mark.parametrize("name", LOSSES)
def test_pairs_of_a_random_policy_make_a_good_one(name, bandit):
    pairs, held_out = bandit
    policy = Table(NUM_STATES, NUM_ACTIONS)
    loss = LOSSES[name](policy)
    train(loss, pairs, updates=80, generator=torch.Generator().manual_seed(1))
    best = torch.arange(NUM_STATES) % NUM_ACTIONS
    probabilities = policy.probabilities()
    assert torch.equal(probabilities.argmax(dim=-1), best)
    assert probabilities.gather(1, best.unsqueeze(1)).min() > 0.5  # 0.65 or more of six seeds; 1/3 before
    if name != "kto":
        assert evaluate_pairs(loss, held_out.minibatches(50, shuffle=False))["rewards/accuracies"] > 0.9


def test_cloning_all_actions_of_a_random_policy_makes_none(bandit):
    policy = Table(NUM_STATES, NUM_ACTIONS)
    train(BehaviorCloningLoss(policy, side="all"), bandit[0], updates=80, generator=torch.Generator().manual_seed(1))
    assert policy.probabilities().max() < 0.5


@pytest.mark.parametrize("options", [{"label_smoothing": 0.2}, {"loss_type": "robust", "label_smoothing": 0.2}])
def test_a_fifth_of_flipped_labels_is_survived(options):
    generator = torch.Generator().manual_seed(2)
    teacher = ScriptedTeacher.preset("mistake", mistake=0.2)
    pairs = make_pairs(
        cut_segments(bandit_episodes(400, generator)), num_pairs=800, teacher=teacher, generator=generator
    )
    assert 0.15 < (pairs.margin < 0).float().mean() < 0.25
    policy = Table(NUM_STATES, NUM_ACTIONS)
    loss = PreferenceLoss(policy, beta=0.5, reference_network="copy", **options)
    train(loss, pairs, updates=80, generator=generator)
    assert torch.equal(policy.probabilities().argmax(dim=-1), torch.arange(NUM_STATES) % NUM_ACTIONS)


@pytest.mark.parametrize(
    "build",
    [
        lambda policy: PreferenceLoss(policy, beta=2.0, length_normalize=True, reference_network="copy"),
        lambda policy: PreferenceLoss(policy, beta=0.3, reference_network="copy"),
        lambda policy: CPLLoss(policy, alpha=2.0, length_normalize=True),
    ],
    ids=["dpo of averages", "dpo of sums", "cpl of averages"],
)
def test_whole_episodes_of_unequal_length_teach_to_walk_straight(build):
    generator = torch.Generator().manual_seed(3)
    pool = cut_segments(corridor_episodes(300, generator))
    assert len(set(pool.length.tolist())) > 3
    pairs = make_pairs(pool, num_pairs=600, min_margin=2.0, generator=generator)
    policy = Table(LENGTH, 2)
    train(build(policy), pairs, updates=80, generator=generator)
    right = policy.probabilities()[: LENGTH - 1, 1]
    assert (right > 0.75).all()  # 0.5 before
