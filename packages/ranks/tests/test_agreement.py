"""Agreement of several ranks: statistics, draws, results of rank 0, errors, and ranks that do not answer."""

import threading

import pytest

from tesserl_ranks import PatientStore, RankError, Ranks, joined

from .together import PATIENCE, environment_of, free_ports, together


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Results of the scenarios on two ranks, which share two processes."""
    plan = [
        ("statistics", {}),
        ("agreement", {}),
        *(("failures", {"kind": kind}) for kind in ("weights", "first", "other", "absent")),
    ]
    return together(2, plan, tmp_path_factory.mktemp("ranks"), TESSERL_RANKS_TIMEOUT="5")


def test_statistics_are_those_of_what_all_ranks_have_seen(small):
    for difference, same, count in small[0]:
        assert difference < 1e-9  # of features around 1000
        assert (same, count) == (1.0, 0.0)


def test_ranks_agree(small):
    first, second = small[1]
    for untouched, drawn, total, some, every, result, *_ in (first, second):
        assert untouched
        assert len(set(drawn)) == 2
        assert (total, some, every, result) == (3.0, True, False, ["of rank 0", 0])
    assert first[1] == second[1]
    assert sorted(first[6] + second[6]) == [0, 1, 2]
    assert sorted([first[7], second[7]]) == [0, 1]


def test_other_weights_are_an_error_that_names_the_ranks(small):
    for message in small[2]:
        assert "at step 1,200 the networks of rank 1 are not those of rank 0" in message


def test_an_error_of_rank_0_reaches_all(small):
    assert "invalid literal" in small[3][0]
    assert "rank 0" in small[3][1]
    assert "failed while counting: invalid literal" in small[3][1]


def test_the_error_of_a_rank_is_told_to_the_others(small):
    waiting, failed = small[4]
    assert failed == "rank 1 cannot go on"
    assert "rank 0: a sum failed" in waiting
    assert "failed: rank 1 cannot go on" in waiting


def test_a_rank_that_stays_away_is_named_after_the_timeout(small):
    waiting, _ = small[5]
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
