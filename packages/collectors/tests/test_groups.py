"""Groups of trajectories: equal starts, complete trajectories."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import nn

from tesserl_actor_critic import ActorCritic
from tesserl_collectors import Collector, GroupCollector, RolloutPolicy, groups
from tesserl_environments import (
    GroupStarts,
    LevelStart,
    ObservationLayout,
    ReplayedStarts,
    RestoredStarts,
    SeedStart,
    StateStart,
    VisitedStart,
)
from tesserl_grpo import check_shared_start


class Walk(gym.Env):
    """Observation ``[start, t]``: the start is drawn by the seed; an episode ends with action 1, or after 7 steps."""

    observation_space, action_space = gym.spaces.Box(-1e9, 1e9, (2,)), gym.spaces.Discrete(3)

    def __init__(self, forgets_its_seed: bool = False):
        self.forgets_its_seed = forgets_its_seed
        self.start, self.t = 0, 0

    def _observation(self):
        return np.array([self.start, self.t], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=None if self.forgets_its_seed else seed)
        level = (options or {}).get("level")
        self.start, self.t = int(self.np_random.integers(1_000)) if level is None else level, 0
        return self._observation(), {}

    def step(self, action):
        self.t += 1
        return self._observation(), float(self.t), action == 1, self.t >= 7, {}

    def get_state(self):
        return self.start, self.t

    def set_state(self, state):
        self.start, self.t = state
        return self._observation()


class Identity(nn.Module):
    in_keys, out_features = ["observation"], 2

    def forward(self, observation):
        return observation.clamp(-1, 1)


def make(start, *, num_envs=3, group_size=4, num_starts=None, wrap=lambda env: env, **options) -> GroupCollector:
    torch.manual_seed(1)
    policy = RolloutPolicy(ActorCritic(Identity(), action_space=3), record_values=False)
    environments = SyncVectorEnv(
        [lambda: wrap(Walk(**options)) for _ in range(num_envs)], autoreset_mode=AutoresetMode.DISABLED
    )
    starts = GroupStarts(environments, start, group_size=group_size, num_starts=num_starts)
    layout = ObservationLayout(environments.single_observation_space)
    return GroupCollector(
        Collector(starts, layout, policy.act), starts, policy, layout.keys, chunk=2, check=check_shared_start
    )


STARTS = {
    "seed": (SeedStart(5), {}),
    "level": (LevelStart(5, "level"), {"num_starts": 2}),
    "state": (StateStart(5), {"wrap": RestoredStarts, "forgets_its_seed": True}),
}


@pytest.mark.parametrize(("start", "options"), STARTS.values(), ids=STARTS)
def test_every_group_is_complete_and_shares_its_start(start, options):
    collector = make(start, **options)
    for first in (0, 5):
        trajectories, group = collector.collect(5)
        assert group.tolist() == [first + number for number in range(5) for _ in range(4)]
        for trajectory in trajectories:
            steps = len(trajectory)
            assert trajectory["observation"][:, 1].tolist() == list(range(steps))
            assert (trajectory["observation"][:, 0] == trajectory["observation"][0, 0]).all()
            assert trajectory["next", "reward"].squeeze(-1).tolist() == [float(t + 1) for t in range(steps)]
            assert trajectory["next", "done"].squeeze(-1).tolist() == [False] * (steps - 1) + [True]
            assert trajectory["next", "terminated"][-1].item() == (trajectory["action"][-1].item() == 1)
        begun = torch.stack([trajectory["observation"][0] for trajectory in trajectories]).reshape(5, 4, 2)
        assert (begun == begun[:, :1]).all()
    episodes = collector.pop_episodes()
    assert len(episodes) == 2 * 5 * 4
    assert all(episode.episode_return == episode.length * (episode.length + 1) / 2 for episode in episodes)


def test_starts_differ_between_groups_and_return_where_they_are_numbered():
    _, firsts = collect_firsts(make(SeedStart(5)), 6)
    assert len(set(firsts)) == 6
    _, firsts = collect_firsts(make(SeedStart(5), num_starts=2), 6)
    assert firsts == firsts[:2] * 3
    _, firsts = collect_firsts(make(LevelStart(5, "level"), num_starts=3), 6)
    assert firsts == [0, 1, 2, 0, 1, 2]


def collect_firsts(collector, num_groups):
    trajectories, group = collector.collect(num_groups)
    return group, [trajectory["observation"][0, 0].item() for trajectory in trajectories[::4]]


def test_log_probs_are_those_of_the_policy_that_acted():
    collector = make(SeedStart(1))
    trajectories, _ = collector.collect(2)
    for trajectory in trajectories:
        parameters = collector.policy.network.policy_parameters(trajectory["observation"])
        expected = collector.policy.network.distribution(*parameters).log_prob(trajectory["action"])
        torch.testing.assert_close(trajectory["action_log_prob"], expected.detach())


def test_groups_that_do_not_share_their_start_are_refused():
    with pytest.raises(
        ValueError, match=r"must share their first observation: in group 0 that of trajectory 1 .* away"
    ):
        make(SeedStart(5), forgets_its_seed=True).collect(2)


def make_visiting(*, fraction=0.5, num_kept=8, **options) -> GroupCollector:
    start = VisitedStart(5, fraction=fraction, num_kept=num_kept)
    return make(start, wrap=lambda env: ReplayedStarts(env, "it"), **options)


def test_groups_of_visited_states_begin_where_earlier_trajectories_were():
    """Observations of `Walk` are its start and the steps since then, so that they show what was replayed."""
    collector, known = make_visiting(), {}
    for _ in range(6):
        trajectories, group = collector.collect(4)
        assert len(trajectories) == len(group) == 16
        for number in group.unique().tolist():
            members = [row for row, each in zip(trajectories, group.tolist(), strict=True) if each == number]
            start, first = members[0]["observation"][0].tolist()
            assert all(member["observation"][0].tolist() == [start, first] for member in members)
            if known and number % 2:
                assert first < known[start]  # a step of a trajectory of the collect before
            else:
                assert first == 0
                assert start not in known
            for member in members:
                count = member["step_count"].squeeze(-1)
                assert member["step_count"].dtype == torch.int64
                assert count.tolist() == member["observation"][:, 1].tolist()
                assert member["next", "done"].squeeze(-1).tolist() == [False] * (len(member) - 1) + [True]
        resets = [row for row, each in zip(trajectories, group.tolist(), strict=True) if not known or each % 2 == 0]
        known = {}
        for row in resets:
            start = row["observation"][0, 0].item()
            known[start] = max(known.get(start, 0), len(row))
        episodes = collector.pop_episodes()
        assert [episode.length for episode in episodes] == [len(row) for row in resets]  # the others are parts
        whole = {tuple(row["action"].tolist()) for row in resets}
        assert {tuple(actions.tolist()) for _, actions in collector.starts.start.trajectories} <= whole


def test_the_same_seed_plays_the_same_visited_groups_and_a_loaded_state_continues_exactly():
    def played(collector, rounds):
        rows = [row for _ in range(rounds) for row in collector.collect(3)[0]]
        return [(row["observation"].tolist(), row["action"].tolist()) for row in rows]

    whole = played(make_visiting(), 6)
    first = make_visiting()
    begun = played(first, 3)
    state, generator = first.state_dict(), torch.get_rng_state()
    second = make_visiting()
    second.load_state_dict(state)
    torch.set_rng_state(generator)
    assert [*begun, *played(second, 3)] == whole
    assert any(row[0][0][1] > 0 for row in whole)


def test_a_state_of_other_starts_has_no_trajectories():
    state = make(SeedStart(5)).state_dict()
    assert "visited" not in state
    collector = make_visiting()
    collector.load_state_dict(state)
    trajectories, _ = collector.collect(4)
    assert all(row["step_count"][0].item() == 0 for row in trajectories)


def test_environments_that_reset_themselves_are_refused():
    environments = SyncVectorEnv([Walk], autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(ValueError, match="expected autoreset mode DISABLED, got SameStep"):
        GroupStarts(environments, SeedStart(1), group_size=2)


def test_a_state_cannot_be_set_in_any_environment():
    with pytest.raises(TypeError, match=r"starts: CartPoleEnv has no state to set; .* choose starts of kind seed"):
        RestoredStarts(gym.make("CartPole-v1"))


def test_a_collector_says_once_that_no_episode_ends(monkeypatch):
    notes = []
    monkeypatch.setattr(groups, "PATIENCE", 0.0)
    collector = make(SeedStart(5), num_envs=1, group_size=2)
    collector.on_note = notes.append
    bias = list(collector.policy.network.policy.parameters())[-1]
    bias.data = torch.tensor([9.0, -99.0, 0.0])  # action 1, which ends an episode, is never taken
    collector.collect(1)
    collector.collect(1)
    (note,) = notes
    assert note.startswith("note: no episode has ended in 2 steps, and trajectories are played to their end; ")
