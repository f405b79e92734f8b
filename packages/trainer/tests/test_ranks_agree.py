"""Learning of several ranks: their gradients, and the numbers of a configuration that they share."""

import gymnasium as gym
import pytest
from gymnasium.vector import SyncVectorEnv

from tesserl_configs import ConfigError, load_config
from tesserl_environments import worker_seeds
from tesserl_ranks.group import Ranks
from tesserl_trainer.algorithms.sharing import part_of
from tesserl_trainer.running.pretrain import pretrain_bc

from .test_ranks import environment_of, together, written


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Results of the small scenarios on two ranks, which share two processes."""
    plan = [
        ("gradients", {"numbers": [12, 12], "minibatches": 1}),
        ("gradients", {"numbers": [12, 12], "minibatches": 3}),
        ("gradients", {"numbers": [5, 11], "minibatches": 2}),
        ("gradients", {"numbers": [2, 14], "minibatches": 4}),
        ("sliced", {"number": 12, "minibatches": 2}),
        ("sliced", {"number": 7, "minibatches": 5}),
        ("replayed", {"number": 6, "munchausen": False}),
        ("replayed", {"number": 6, "munchausen": True}),
        ("compared", {"number": 12, "size": 6}),
        ("compared", {"number": 9, "size": 4}),  # parts of different sizes, and a pair alone
    ]
    directory = tmp_path_factory.mktemp("ranks")
    return together(2, plan, directory, TESSERL_RANKS_TIMEOUT="5")


@pytest.mark.parametrize("index", range(4), ids=["whole", "minibatches", "unequal", "fewer-rows-than-minibatches"])
def test_gradients_of_two_ranks_are_those_of_one_on_the_whole_batch(small, index):
    for differences in small[index]:
        assert len(differences) >= 7
        assert max(differences) < 1e-12


@pytest.mark.parametrize("index", [4, 5], ids=["slices", "fewer-rows-than-ranks"])
def test_gradients_of_slices_are_those_of_the_whole_batch(small, index):
    for differences in small[index]:
        assert len(differences) >= 8
        assert max(differences) < 1e-12


@pytest.mark.parametrize("index", [6, 7], ids=["plain", "munchausen"])
def test_gradients_of_batches_from_several_replay_buffers_are_those_of_one_whole_batch(small, index):
    for differences in small[index]:
        assert len(differences) >= 16
        assert max(differences) < 1e-12


@pytest.mark.parametrize("index", [8, 9], ids=["equal-parts", "unequal-parts"])
def test_gradients_of_parts_of_the_drawn_pairs_are_those_of_the_whole_batch(small, index):
    for differences in small[index]:
        assert len(differences) >= 10
        assert max(differences) < 1e-12


@pytest.mark.parametrize(
    ("algorithm", "changes", "message"),
    [
        (
            "ppo",
            {},
            "environment.num_envs: expected a multiple of the number of ranks, 2, got 3; write 4, or start another "
            "number of ranks",
        ),
        (
            "ppo",
            {
                "num_envs: 3}": "num_envs: 2}\ncollectors: {kind: process, workers: 2}",
                "num_minibatches: 3": "num_minibatches: 2",
            },
            "collectors: expected kind local with 2 ranks, each of which collects in its own process, got process; "
            "leave it out",
        ),
        (
            "iqn",
            {"num_envs: 3": "num_envs: 2"},
            "iqn.batch_size: expected a multiple of the number of ranks, 2, got 9; write 10, or start another number "
            "of ranks",
        ),
        (
            "iqn",
            {"num_envs: 3": "num_envs: 2", "batch_size: 9": "batch_size: 8", "capacity: 90": "capacity: 91"},
            "replay.capacity: expected a multiple of the number of ranks, 2, got 91; write 92, or start another number "
            "of ranks",
        ),
        (
            "grpo",
            {"num_envs: 3": "num_envs: 2", "  group_size: 4": "  starts: {kind: visited}\n  group_size: 4"},
            "grpo.starts.kind: expected seed, state or level with 2 ranks, each of which knows only its own "
            "trajectories, got visited; choose seed, or start one rank",
        ),
        (
            "dpo",
            {"num_envs: 3": "num_envs: 2"},
            "dpo.batch_size: expected a multiple of the number of ranks, 2, got 5; write 6, or start another number of "
            "ranks",
        ),
    ],
)
def test_what_ranks_cannot_share_is_refused(tmp_path, algorithm, changes, message):
    config = load_config(written(tmp_path, algorithm, changes))
    with pytest.raises(ConfigError) as error:
        part_of(config, Ranks(0, 2), 0)
    assert str(error.value) == message


def test_a_rank_has_its_part_of_the_numbers(tmp_path):
    changes = {"num_envs: 3": "num_envs: 4", "batch_size: 9": "batch_size: 8"}
    config = load_config(written(tmp_path, "iqn", changes))
    part = part_of(config, Ranks(1, 2), 1)
    assert (part.environment.num_envs, part.iqn.batch_size, part.replay.capacity) == (2, 4, 45)
    assert part_of(config, Ranks(), 0) is config


def test_pretraining_has_no_ranks(monkeypatch, tmp_path):
    for name, value in environment_of(0, 2, MASTER_PORT="1").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="pretrain: expected one process, got 2; start it without torchrun"):
        pretrain_bc(tmp_path / "none.yaml", pairs=tmp_path, updates=5)


def test_environments_have_the_same_seeds_with_any_number_of_ranks():
    def seeds(number, first):
        environments = SyncVectorEnv([lambda: gym.make("CartPole-v1")] * number)
        try:
            return worker_seeds(5, environments, first=first)
        finally:
            environments.close()

    assert seeds(2, 0) + seeds(2, 2) == seeds(4, 0)
