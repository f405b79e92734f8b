"""Collected transitions against what the counting task must give, in every autoreset mode."""

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from tesserl_collectors.collector import Collector
from tesserl_environments import ObservationLayout, autoreset_mode

from .counting import counting_envs

pytestmark = pytest.mark.kernel_free

MODES = list(AutoresetMode)


def make_collector(mode: AutoresetMode, *lengths: tuple[int, ...], policy=None) -> Collector:
    environments = counting_envs(mode, *lengths)
    policy = policy or (lambda observation: torch.ones(len(observation), dtype=torch.int64))
    return Collector(
        environments, ObservationLayout(environments.single_observation_space), policy, seeds=[1] * len(lengths)
    )


def transitions(collector: Collector, rounds: list[int], env: int) -> list[tuple]:
    rows = []
    for steps in rounds:
        batch = collector.collect(steps)[env]
        following = batch["next"]
        for t in range(steps):
            if batch["mask"][t]:
                rows.append(
                    (
                        *batch["observation"][t].tolist(),
                        *following["observation"][t].tolist(),
                        following["reward"][t].item(),
                        following["terminated"][t].item(),
                        following["truncated"][t].item(),
                        following["done"][t].item(),
                    )
                )
    return rows


def expected(lengths: tuple[int, ...], number: int) -> list[tuple]:
    rows, episode = [], 0
    while len(rows) < number:
        length = lengths[episode % len(lengths)]
        for t in range(1, length + 1):
            last = t == length
            ends = (last and episode % 2 == 0, last and episode % 2 == 1, last)
            rows.append((episode, t - 1, episode, t, 10.0 * episode + t, *ends))
        episode += 1
    return rows[:number]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rounds", [[1] * 17, [5, 7, 5], [17]])
def test_every_transition_is_the_one_that_the_task_made(mode, rounds):
    lengths = ((2, 4, 1), (3, 1, 1))
    for env, env_lengths in enumerate(lengths):
        rows = transitions(make_collector(mode, *lengths), rounds, env)
        assert len(rows) >= 10
        assert rows == expected(env_lengths, len(rows))


@pytest.mark.parametrize("mode", MODES)
def test_no_transition_crosses_a_reset_and_only_next_step_mode_masks(mode):
    collector = make_collector(mode, (2, 3), (5, 1))
    batch = collector.collect(30)
    same_episode = batch["observation"][..., 0] == batch["next", "observation"][..., 0]
    assert same_episode[batch["mask"]].all()
    assert bool(batch["mask"].all()) == (mode is not AutoresetMode.NEXT_STEP)


@pytest.mark.parametrize("mode", MODES)
def test_episodes_report_their_undiscounted_return_and_length(mode):
    collector = make_collector(mode, (2, 3), (40,))
    collector.collect(8)
    episodes = [(episode.episode_return, episode.length) for episode in collector.pop_episodes()]
    assert episodes[:2] == [(1 + 2, 2), (11 + 12 + 13, 3)]
    assert collector.pop_episodes() == []


def test_the_policy_sees_the_reset_observation_and_its_action_reaches_the_environment():
    seen = []

    def policy(observation):
        seen.append(observation.clone())
        return observation[:, 1].long() % 3

    collector = make_collector(AutoresetMode.SAME_STEP, (2, 3), policy=policy)
    batch = collector.collect(5)
    assert [tuple(row[0].tolist()) for row in seen] == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    assert batch["action"][0].tolist() == [0, 1, 0, 1, 2]
    assert collector.environments.envs[0].actions == [0, 1, 0, 1, 2]


def test_batches_carry_the_version_of_their_weights():
    policy = torch.nn.Linear(2, 3)
    collector = make_collector(AutoresetMode.SAME_STEP, (4,))
    collector.policy = lambda observation: policy(observation).argmax(-1)
    collector.set_weights(7, 100)
    assert collector.collect(2)["policy_version"].unique().tolist() == [7]


def test_a_state_continues_the_same_stream():
    whole = transitions(make_collector(AutoresetMode.SAME_STEP, (3, 5)), [4, 4, 4], 0)
    first = make_collector(AutoresetMode.SAME_STEP, (3, 5))
    rows = transitions(first, [4], 0)
    second = Collector(first.environments, first.layout, first.policy)
    second.load_state_dict(first.state_dict())
    assert rows + transitions(second, [4, 4], 0) == whole
    assert [e.length for e in second.pop_episodes()] == [3, 5, 3]


def test_an_environment_that_hides_its_autoreset_mode_is_refused():
    environments = counting_envs(AutoresetMode.SAME_STEP, (3,))
    environments.metadata = {}
    with pytest.raises(ValueError, match=r"expected metadata\['autoreset_mode'\] to be one of .*, got None"):
        autoreset_mode(environments)


def test_next_step_mode_marks_exactly_the_reset_steps():
    batch = make_collector(AutoresetMode.NEXT_STEP, (2, 3)).collect(9)
    assert np.flatnonzero(~batch["mask"][0].numpy()).tolist() == [2, 6]


def test_batches_hold_which_actions_were_greedy_where_the_policy_says_so():
    environments = counting_envs(AutoresetMode.SAME_STEP, (3, 2), (1, 4))
    marks = iter(torch.tensor([[True, False], [False, False], [True, True], [False, True]]))
    layout = ObservationLayout(environments.single_observation_space)
    collector = Collector(
        environments, layout, lambda observation: torch.zeros(2, dtype=torch.int64), seeds=[1, 1], greedy=marks.__next__
    )
    assert collector.collect(3)["greedy"].tolist() == [[True, False, True], [False, False, True]]
    assert collector.collect(1)["greedy"].tolist() == [[False], [True]]
    assert "greedy" not in make_collector(AutoresetMode.SAME_STEP, (1,)).collect(1)
