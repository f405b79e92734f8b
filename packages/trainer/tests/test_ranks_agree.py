"""Agreement of several ranks: gradients, statistics, draws, results of rank 0, errors; numbers that they share."""

import threading

import gymnasium as gym
import pytest
from gymnasium.vector import SyncVectorEnv

from tesserl_configs import ConfigError, load_config
from tesserl_environments import worker_seeds
from tesserl_trainer.algorithms.sharing import part_of
from tesserl_trainer.ranks.group import RankError, Ranks
from tesserl_trainer.ranks.joining import joined
from tesserl_trainer.ranks.store import PatientStore
from tesserl_trainer.running.pretrain import pretrain_bc

from .test_ranks import PATIENCE, environment_of, free_ports, together, written


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Results of the small scenarios on two ranks, which share two processes."""
    plan = [
        ("gradients", {"numbers": [12, 12], "minibatches": 1}),
        ("gradients", {"numbers": [12, 12], "minibatches": 3}),
        ("gradients", {"numbers": [5, 11], "minibatches": 2}),
        ("gradients", {"numbers": [2, 14], "minibatches": 4}),
        ("statistics", {}),
        ("agreement", {}),
        *(("failures", {"kind": kind}) for kind in ("weights", "first", "other", "absent")),
        ("sliced", {"number": 12, "minibatches": 2}),
        ("sliced", {"number": 7, "minibatches": 5}),
    ]
    directory = tmp_path_factory.mktemp("ranks")
    return together(2, plan, directory, TESSERL_RANKS_TIMEOUT="5")


@pytest.mark.parametrize("index", range(4), ids=["whole", "minibatches", "unequal", "fewer-rows-than-minibatches"])
def test_gradients_of_two_ranks_are_those_of_one_on_the_whole_batch(small, index):
    for differences in small[index]:
        assert len(differences) >= 7
        assert max(differences) < 1e-12


@pytest.mark.parametrize("index", [10, 11], ids=["slices", "fewer-rows-than-ranks"])
def test_gradients_of_slices_are_those_of_the_whole_batch(small, index):
    for differences in small[index]:
        assert len(differences) >= 8
        assert max(differences) < 1e-12


def test_statistics_are_those_of_what_all_ranks_have_seen(small):
    for difference, same, count in small[4]:
        assert difference < 1e-9  # of features around 1000
        assert (same, count) == (1.0, 0.0)


def test_ranks_agree(small):
    first, second = small[5]
    for untouched, drawn, total, some, every, result, *_ in (first, second):
        assert untouched
        assert len(set(drawn)) == 2
        assert (total, some, every, result) == (3.0, True, False, ["of rank 0", 0])
    assert first[1] == second[1]
    assert sorted(first[6] + second[6]) == [0, 1, 2]
    assert sorted([first[7], second[7]]) == [0, 1]


def test_other_weights_are_an_error_that_names_the_ranks(small):
    for message in small[6]:
        assert "at step 1,200 the networks of rank 1 are not those of rank 0" in message


def test_an_error_of_rank_0_reaches_all(small):
    assert "invalid literal" in small[7][0]
    assert "rank 0" in small[7][1]
    assert "failed while counting: invalid literal" in small[7][1]


def test_the_error_of_a_rank_is_told_to_the_others(small):
    waiting, failed = small[8]
    assert failed == "rank 1 cannot go on"
    assert "rank 0: a sum failed" in waiting
    assert "failed: rank 1 cannot go on" in waiting


def test_a_rank_that_stays_away_is_named_after_the_timeout(small):
    waiting, _ = small[9]
    assert "rank 0: a sum failed after" in waiting
    assert "no answer from rank 1" in waiting


class Known(dict):
    """A store without other processes."""

    def set(self, key, value):
        self[key] = value.encode()

    def add(self, key, amount):
        self[key] = self.get(key, 0) + amount
        return self[key]

    def check(self, keys):
        return all(key in self for key in keys)


class Silent(Known):
    """A store whose machine is gone."""

    def __init__(self):
        super().__init__()
        self.over = threading.Event()

    def check(self, keys):
        return self.over.wait(PATIENCE)


def test_a_rank_that_starts_too_slowly_is_named():
    with pytest.raises(RankError, match=r"^rank 1 needed more than 0.01 s for starting environments$"):
        Ranks(0, 2, store=PatientStore(Known(), 1.0), patience=0.01).meet("starting environments")
    store = Known({"failed/1": b"no such task"})
    with pytest.raises(RankError, match=r"^rank 1 failed while starting environments: no such task$"):
        Ranks(0, 2, store=PatientStore(store, 1.0)).meet("starting environments")


def test_a_rank_0_without_signs_of_life_is_named():
    with pytest.raises(RankError, match=r"^rank 0 gave no sign of life for 0.01 s while evaluating$"):
        Ranks(1, 2, store=PatientStore(Known(), 1.0), timeout=0.01).by_first(lambda: None, "evaluating")


def test_a_store_that_does_not_answer_is_an_error():
    store = Silent()
    try:
        with pytest.raises(
            RankError, match="the store of the ranks, on the machine of rank 0, does not answer any more"
        ):
            Ranks(1, 2, store=PatientStore(store, 0.05)).by_first(lambda: None, "evaluating")
    finally:
        store.over.set()


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


def test_a_rank_that_does_not_join_is_named(monkeypatch):
    (port,) = free_ports(1)
    told = environment_of(0, 2, MASTER_PORT=str(port), TESSERL_RANKS_JOIN_TIMEOUT="2")
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TESSERL_RANKS_JOIN_TIMEOUT"):
        monkeypatch.setenv(name, told[name])
    with pytest.raises(RankError, match=rf"ranks: not all of 2 ranks met at 127.0.0.1:{port} within 2 s"):
        joined("cpu").__enter__()


def test_a_time_limit_must_be_a_number(monkeypatch):
    for name, value in environment_of(0, 2, MASTER_PORT="1", TESSERL_RANKS_TIMEOUT="soon").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="TESSERL_RANKS_TIMEOUT: expected a positive number of seconds, got 'soon'"):
        joined("cpu").__enter__()


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
