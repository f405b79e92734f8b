"""``tesserl pairs make`` and ``inspect``: what becomes a pair, and that a pair that cannot be read is named."""

import importlib.util
import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tesserl_configs import ConfigError, load_config
from tesserl_preference_data import StoreError, append_label, load_pairs
from tesserl_preference_data.pictures import encode_frame
from tesserl_storage.digests import digest
from tesserl_trainer import train
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.cli import main
from tesserl_trainer.pairs.inspection import inspect_store, text
from tesserl_trainer.pairs.making import make_store
from tesserl_trainer.running.collect import collect
from tesserl_trainer.running.run_directory import run_config
from tesserl_trainer.usage import ArgumentError
from tesserl_training.checkpoints.run_checkpoints import Checkpoints

from .stores import picture, write_pairs, write_trajectories

pytestmark = pytest.mark.kernel_free

LENGTHS = [4, 6, 8, 10, 12]
"""Trajectory ``n`` has ``LENGTHS[n]`` steps of reward ``n``."""


@pytest.fixture
def trajectories(tmp_path):
    return write_trajectories(tmp_path / "trajectories", LENGTHS)


def steps_of(pair, side) -> list[list[int]]:
    """``[number, t]`` of each step of one side."""
    return pair[side]["observation"][0][pair[side]["mask"][0]].int().tolist()


def test_whole_episodes_are_compared_by_their_return(trajectories, tmp_path):
    result = make_store([trajectories], out=tmp_path / "pairs")
    pairs = load_pairs(tmp_path / "pairs")
    assert (result["pairs"], result["segments"], result["source"]) == (10, 5, "score")
    for number in range(10):
        pair = pairs[number]
        chosen, rejected = steps_of(pair, "chosen"), steps_of(pair, "rejected")
        better, worse = chosen[0][0], rejected[0][0]
        assert chosen == [[better, t] for t in range(LENGTHS[better])]
        assert rejected == [[worse, t] for t in range(LENGTHS[worse])]
        assert pair["margin"].item() == better * LENGTHS[better] - worse * LENGTHS[worse] > 0


def test_segments_of_one_length_lie_in_an_episode(trajectories, tmp_path):
    make_store([trajectories], out=tmp_path / "pairs", segment="fixed:4", num=12)
    pairs = load_pairs(tmp_path / "pairs")
    assert len(pairs) == 12
    for number in range(12):
        for side in ("chosen", "rejected"):
            steps = steps_of(pairs[number], side)
            assert steps == [[steps[0][0], steps[0][1] + i] for i in range(4)]


def test_segments_of_other_lengths_are_within_their_bounds(trajectories, tmp_path):
    make_store([trajectories], out=tmp_path / "pairs", segment="variable:2:5")
    assert set(load_pairs(tmp_path / "pairs").pool.length.tolist()) == {2, 3, 4, 5}


def test_a_discounted_score_may_prefer_another_episode(tmp_path):
    """Episode 1 has 12 rewards of 1; episode 2 has 5 of 2. Discounted by a half: below 2, and 3.875."""
    store = write_trajectories(tmp_path / "trajectories", [3, 12, 5])
    for by, margin in (("return", 2.0), ("discounted:0.5", 2 * (2 - 0.5**4) - (2 - 0.5**11))):
        make_store([store], out=tmp_path / by, by=by)
        pairs = load_pairs(tmp_path / by)
        both = [n for n in range(3) if {steps_of(pairs[n], s)[0][0] for s in ("chosen", "rejected")} == {1, 2}]
        assert steps_of(pairs[both[0]], "chosen")[0][0] == (1 if by == "return" else 2)
        assert pairs.margin[both[0]].item() == pytest.approx(margin)


def test_a_segment_may_be_scored_by_all_that_follows_it(tmp_path):
    """The last two of 5 rewards of 2 are followed by nothing, the first two of 4 rewards of 3 by two more."""
    store = write_trajectories(tmp_path / "trajectories", [1, 1, 5, 4])
    make_store([store], out=tmp_path / "pairs", segment="fixed:2", by="to_go")
    pairs = load_pairs(tmp_path / "pairs")
    to_go = {(2, t): 2.0 * (5 - t) for t in range(5)} | {(3, t): 3.0 * (4 - t) for t in range(4)}
    assert len(pairs) >= 5
    for number in range(len(pairs)):
        chosen, rejected = (to_go[tuple(steps_of(pairs[number], side)[0])] for side in ("chosen", "rejected"))
        assert pairs.margin[number].item() == chosen - rejected > 0


def judgement(run, observation, action):
    """Return the difference between an action and the best one, by the network of a run."""
    config = run_config(run)
    agent = Task(config).agent()
    weights = Checkpoints(run).load_weights("best")
    agent.load_networks(weights.networks, weights.path)
    with torch.no_grad(), agent.policy.greedy() as policy:
        if config.algorithm == "ppo":
            network = agent.policy.network
            values = network.distribution(*network.policy_parameters(observation)).logits
        else:
            values = policy.action_value(observation)
    return values[range(len(action)), action] - values.max(dim=-1).values


@pytest.mark.parametrize("algorithm", ["iqn", "ppo"])
def test_a_policy_judges_segments_by_their_regret(algorithm, write_config, tmp_path):
    run, store = tmp_path / "run", tmp_path / "trajectories"
    train(load_config(write_config(algorithm=algorithm)), run_dir=run)
    collect(run, random=True, episodes=6, seed=3, out=store)
    make_store([store], out=tmp_path / "pairs", segment="fixed:4", by=f"regret:{run}", num=12)
    pairs = load_pairs(tmp_path / "pairs")
    for number in range(12):
        chosen, rejected = (
            float(judgement(run, pairs[number][side]["observation"][0], pairs[number][side]["action"][0]).sum())
            for side in ("chosen", "rejected")
        )
        assert rejected < chosen <= 0
        assert pairs.margin[number].item() == pytest.approx(chosen - rejected, abs=1e-5)


def test_a_policy_judges_episodes_of_its_own_task_alone(write_config, trajectories, tmp_path):
    train(load_config(write_config()), run_dir=tmp_path / "run")
    expected = r"regret:.*run: expected episodes with steps of {'observation': \(4,\)}, got {'observation': \(2,\)}"
    with pytest.raises(ArgumentError, match=expected):
        make_store([trajectories], out=tmp_path / "pairs", by=f"regret:{tmp_path / 'run'}")


def test_a_policy_of_continuous_actions_judges_nothing(write_config, trajectories, tmp_path):
    train(load_config(write_config("Pendulum-v1", "ppo")), run_dir=tmp_path / "run")
    with pytest.raises(ArgumentError, match="expected a policy of discrete actions without memory, got another"):
        make_store([trajectories], out=tmp_path / "pairs", by=f"regret:{tmp_path / 'run'}")


def test_the_margin_the_start_and_the_ties_decide_what_is_compared(tmp_path):
    starts = [0, 1, 0, 1, 1]
    store = write_trajectories(tmp_path / "trajectories", LENGTHS, starts=starts)
    options = {"segment": "fixed:2"}
    make_store([store], out=tmp_path / "starts", same_start=True, **options)
    pairs = load_pairs(tmp_path / "starts")
    for number in range(len(pairs)):
        assert starts[steps_of(pairs[number], "chosen")[0][0]] == starts[steps_of(pairs[number], "rejected")[0][0]]
    make_store([store], out=tmp_path / "margin", min_margin=5, **options)  # rewards that differ by at least 3
    assert load_pairs(tmp_path / "margin").margin.min() == 6
    make_store([store], out=tmp_path / "ties", ties="keep", **options)
    pairs = load_pairs(tmp_path / "ties")
    assert torch.equal(pairs.label == 0.5, pairs.margin == 0)
    assert (pairs.label == 0.5).any()


@pytest.mark.parametrize(
    ("teacher", "agreement"), [("oracle", 1.0), ("mistake:1", 0.0), ("noisy:1000", 1.0), ("myopic", 1.0)]
)
def test_a_teacher_may_err(trajectories, tmp_path, teacher, agreement):
    make_store([trajectories], out=tmp_path / "pairs", segment="fixed:4", teacher=teacher)
    report = inspect_store(tmp_path / "pairs")
    assert report["agreement"] == {"teacher": agreement}
    assert list(report["sources"]) == ["teacher"]


def test_pictures_stay_with_their_steps_and_out_of_batches(trajectories, tmp_path):
    make_store([trajectories], out=tmp_path / "pairs", segment="fixed:3", num=5, value_discount=0.9)
    pairs = load_pairs(tmp_path / "pairs")
    for number in pairs.chosen_segment.tolist():
        for step in pairs.pool.segment(number):
            shade = 10 * step["observation"][0] + step["observation"][1]
            assert torch.equal(step["extra", "frame"], encode_frame(picture(int(shade))))
    assert sorted(pairs[0]["chosen"].keys()) == ["action", "mask", "observation", "reward", "value_target"]


def test_several_stores_make_one_and_starts_stay_apart(tmp_path):
    seeing = write_trajectories(tmp_path / "seeing", [3, 4])
    blind = write_trajectories(tmp_path / "blind", [5, 6], frames=False)
    result = make_store([seeing, blind], out=tmp_path / "pairs")
    assert (result["pairs"], result["frames"]) == (5, False)  # 3 x 0 and 5 x 0 tie
    with pytest.raises(ValueError, match="blind: expected two segments that can be compared, got 4 of as many starts;"):
        make_store([seeing, blind], out=tmp_path / "none", same_start=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("arguments", [[], ["--num", "1"], ["--teacher", "oracle"]])
def test_pairs_that_all_tie_are_refused_with_what_can_be_done(tmp_path, capfd, arguments):
    stores = [str(write_trajectories(tmp_path / name, [4])) for name in ("one", "two")]  # trajectory 0 has reward 0
    command = ["pairs", "make", *stores, "--out", str(tmp_path / "out"), *arguments]
    assert main(command) == 1
    assert (
        f"{stores[0]}, {stores[1]}: expected segments of different scores, got 2 that all tie; keep the ties with "
        "--ties keep, choose another score with --by, or collect episodes that differ"
    ) in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*command, "--ties", "keep"]) == 0
    assert load_pairs(tmp_path / "out").label.tolist() == [0.5]


def test_segments_that_tie_in_every_group_tie_though_the_groups_differ(tmp_path):
    stores = [write_trajectories(tmp_path / "one", [4, 4, 4], starts=[0, 1, 1])]  # returns 0; 4 and 8
    result = make_store(stores, out=tmp_path / "out", same_start=True)
    assert result["pairs"] == 1
    stores = [write_trajectories(tmp_path / name, [4, 2, 1], starts=[0, 1, 1]) for name in ("two", "three")]
    with pytest.raises(ValueError, match="expected segments of different scores, got 6 that all tie"):
        make_store(stores, out=tmp_path / "none", same_start=True)  # returns 2 and 2 of each pair of episodes


def test_a_margin_that_no_pair_has_is_named_with_the_largest(tmp_path):
    store = write_trajectories(tmp_path / "store", [4, 6])  # returns 0 and 6
    with pytest.raises(ValueError, match="at least --min-margin 7, got a largest difference of 6; lower --min-margin"):
        make_store([store], out=tmp_path / "out", min_margin=7)
    make_store([store], out=tmp_path / "out", min_margin=6)


def test_a_teacher_that_tells_nothing_apart_is_named(tmp_path):
    store = write_trajectories(tmp_path / "store", [4, 6])
    with pytest.raises(ValueError, match="expected pairs that the teacher equal:5 tells apart, got none of 2 segments"):
        make_store([store], out=tmp_path / "out", teacher="equal:5")


def test_the_same_seed_makes_the_same_pairs(trajectories, tmp_path):
    stores = [tmp_path / name for name in "abc"]
    for store, seed in zip(stores, (1, 1, 2), strict=True):
        make_store([trajectories], out=store, segment="variable:2:4", num=8, seed=seed)
    a, b, c = ((store / "pairs-00001.jsonl").read_bytes() for store in stores)
    assert a == b != c


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--segment", "fixed:x"], "--segment must be episode, fixed:LENGTH or variable:LEAST:MOST"),
        (["--segment", "variable:3"], "--segment must be episode"),
        (["--segment", "episode:3"], "--segment must be episode"),
        (["--segment", "fixed:50"], "trajectories must have at least 50 steps"),
        (["--by", "mean"], "--by must be return, discounted:FACTOR, to_go, to_go:FACTOR or regret:RUN"),
        (["--by", "discounted:"], "with a factor in [0, 1], got 'discounted:'"),
        (
            ["--teacher", "strict"],
            "--teacher must be one of oracle, noisy, myopic, skip, equal, mistake, with a number",
        ),
        (["--teacher", "oracle:3"], "--teacher must be one of"),
        (["--teacher", "mistake:2"], "--teacher mistake:2: mistake must be in [0, 1], got 2.0"),
        (["--num", "1000"], "1000 pairs were asked for, 10 can be made"),
        (["minari:none/such-v0"], "minari:none/such-v0"),
        (["NOWHERE"], "holds no trajectories"),
    ],
)
def test_mistakes_are_named_and_make_nothing(trajectories, tmp_path, capfd, arguments, message):
    arguments = [str(tmp_path / "nowhere") if each == "NOWHERE" else each for each in arguments]
    assert main(["pairs", "make", str(trajectories), "--out", str(tmp_path / "pairs"), *arguments]) != 0
    error = capfd.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "pairs").exists()


def test_pairs_are_never_overwritten(trajectories, tmp_path):
    make_store([trajectories], out=tmp_path / "pairs")
    with pytest.raises(FileExistsError, match="pairs exists, pairs are not overwritten; name another directory"):
        make_store([trajectories], out=tmp_path / "pairs")


def test_minari_must_be_installed(monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "minari" else find(name))
    with pytest.raises(ConfigError, match=r'minari:x/y-v0 needs Minari; install "tesserl-trainer\[minari\]"'):
        make_store(["minari:x/y-v0"], out=tmp_path / "pairs")


@pytest.mark.filterwarnings("ignore:.*is set to None:UserWarning")  # of who made the dataset, minari 0.5.4
@pytest.mark.filterwarnings("ignore:.*eval_env.*:UserWarning")
def test_pairs_are_made_of_a_minari_dataset(monkeypatch, tmp_path):
    minari = pytest.importorskip("minari", reason="Minari is not installed; it needs Python 3.11")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    environment = gym.make("CartPole-v1")
    random = np.random.default_rng(0)
    episodes = []
    for number, length in enumerate((6, 9, 7)):
        observations = random.normal(size=(length + 1, 4)).astype(np.float32)
        observations[0] = number // 2  # the first two begin alike
        ends = np.arange(length) == length - 1
        episodes.append(
            minari.data_collector.EpisodeBuffer(
                observations=observations,
                actions=random.integers(0, 2, length),
                rewards=np.ones(length),
                terminations=ends,
                truncations=np.zeros(length, bool),
            )
        )
    minari.create_dataset_from_buffers("cartpole/tiny-v0", episodes, env=environment, algorithm_name="none")
    with pytest.raises(StoreError, match="minari:cartpole/other-v0 is not on this machine; fetch it with --download"):
        make_store(["minari:cartpole/other-v0"], out=tmp_path / "pairs")
    options = {"segment": "fixed:3", "same_start": True, "labelled": False}
    result = make_store(["minari:cartpole/tiny-v0"], out=tmp_path / "pairs", **options)
    assert not result["frames"]
    pairs = load_pairs(tmp_path / "pairs", unlabelled=True)
    known = {
        (*observation.tolist(), int(action))
        for each in episodes
        for observation, action in zip(each.observations, each.actions, strict=False)
    }
    batch = pairs[:]
    for side in ("chosen", "rejected"):
        steps = batch[side].flatten()
        for observation, action in zip(steps["observation"].tolist(), steps["action"].tolist(), strict=True):
            assert (*observation, action) in known
    assert batch["chosen"]["action"].dtype == torch.int64


def test_inspect_counts(tmp_path):
    store = write_trajectories(tmp_path / "trajectories", LENGTHS)
    make_store([store], out=tmp_path / "pairs", teacher="mistake:0.5", seed=3)
    append_label(tmp_path / "pairs", 0, "tie", source="Ada")
    append_label(tmp_path / "pairs", 1, "skip", source="Ada")
    pairs = load_pairs(tmp_path / "pairs")
    report = inspect_store(tmp_path / "pairs")
    expected = {"pairs": 10, "labelled": 9, "unlabelled": 1, "ties": 1, "segments": 5, "frames": True}
    assert {key: report[key] for key in expected} == expected
    assert report["lengths"] == [4.0, 6.0, 8.0, 10.0, 12.0]
    assert report["sources"] == {"Ada": 2, "teacher": 8}
    assert report["people"] == {"tie": 1, "skip": 1}
    margin = pairs.margin[pairs.label == 1]
    assert report["agreement"] == {"Ada": None, "teacher": (margin > 0).double().mean().item()}
    assert 0 < report["agreement"]["teacher"] < 1
    assert report["margins"][0] == pairs.margin.min()
    assert report["steps"]["observation"] == "[2] torch.float32"
    shown = text(report)
    assert "10 pairs of 5 segments" in shown
    assert "judged by  Ada: 2" in shown


def test_inspect_prints_a_report_or_json(trajectories, tmp_path, capfd):
    make_store([trajectories], out=tmp_path / "pairs")
    capfd.readouterr()
    assert main(["pairs", "inspect", str(tmp_path / "pairs")]) == 0
    assert "lengths    4 to 12, median 8" in capfd.readouterr().out
    assert main(["pairs", "inspect", str(tmp_path / "pairs"), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["agreement"] == {"score": 1.0}


def needing(pairs, segment: int) -> list[int]:
    both = zip(pairs.chosen_segment.tolist(), pairs.rejected_segment.tolist(), strict=True)
    return [number for number, each in enumerate(both) if segment in each]


def test_pairs_with_numbers_that_are_none_are_named(trajectories, tmp_path):
    store = tmp_path / "pairs"
    make_store([trajectories], out=store)
    names = needing(load_pairs(store), 2)
    file = store / "segments-00000.safetensors"
    tensors = load_file(file)
    tensors["steps/observation"][int(tensors["start"][2]) + 1, 0] = torch.nan
    save_file(tensors, file)
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["files"][0] |= {"sha256": digest(file)["sha256"]}
    (store / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match=f"pairs {', '.join(map(str, names))} must hold finite numbers.* observation$"):
        inspect_store(store)


@pytest.mark.parametrize("damage", ["segments", "pairs", "line"])
def test_pairs_that_cannot_be_read_are_named(trajectories, tmp_path, capfd, damage):
    store = tmp_path / "pairs"
    make_store([trajectories], out=store, num=3)
    capfd.readouterr()
    segments, pairs = store / "segments-00000.safetensors", store / "pairs-00001.jsonl"
    if damage == "segments":
        segments.write_bytes(segments.read_bytes()[:-1] + b"\x07")
        message = "pairs 0, 1, 2 cannot be read: .*segments-00000.safetensors: SHA-256 differs"
    elif damage == "pairs":
        pairs.unlink()
        message = "pairs 0 to 2 cannot be read: .*pairs-00001.jsonl: missing"
    else:
        lines = pairs.read_text().splitlines()
        pairs.write_text("\n".join([lines[0], lines[1].replace('"chosen": ', '"chosen": 9'), lines[2], ""]))
        manifest = json.loads((store / "manifest.json").read_text())
        found = digest(pairs)
        manifest["files"][1] |= {"sha256": found["sha256"], "size": found["bytes"]}
        (store / "manifest.json").write_text(json.dumps(manifest))
        message = r"pairs-00001.jsonl:2: a pair must have chosen and rejected in \[0, "
    with pytest.raises(StoreError, match=message):
        inspect_store(store)
    assert main(["pairs", "inspect", str(store)]) == 1


@contextmanager
def labelling(tmp_path):
    """A process that serves four pairs."""
    arguments = ["pairs", "label", str(tmp_path / "trajectories"), "--num", "4", "--segment", "fixed:3", "--no-open"]
    command = [sys.executable, "-m", "tesserl_trainer.cli", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr.readline().startswith("http://127.0.0.1:")
            yield process
        finally:
            process.kill()


def test_label_serves_until_ctrl_c_and_continues_with_its_own_pairs(tmp_path):
    write_trajectories(tmp_path / "trajectories", LENGTHS)
    for judged in (0, 1):
        with labelling(tmp_path) as process:
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        result = json.loads(out)
        assert (result["total"], result["judged"]) == (4, judged)
        assert result["path"] == str(tmp_path / "trajectories-pairs")
        append_label(result["path"], 0, "tie", source="Ada")


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_label_that_something_else_stops_says_so(tmp_path, stop, code):
    write_trajectories(tmp_path / "trajectories", LENGTHS)
    with labelling(tmp_path) as process:
        process.send_signal(stop)
        _, told = process.communicate(timeout=60)
    assert process.returncode == code
    assert told == f"stopped by {stop.name}; every answer is saved in {tmp_path / 'trajectories-pairs'}\n"


def test_label_says_what_it_cannot_show(tmp_path, capfd):
    blind = write_trajectories(tmp_path / "blind", [3, 4], frames=False)
    for path in (blind, write_pairs(tmp_path / "blind-too", frames=False), Path(tmp_path / "nowhere")):
        assert main(["pairs", "label", str(path), "--no-open"]) == (2 if path.name == "nowhere" else 1)
    error = capfd.readouterr().err
    assert error.count("has no pictures to show") == 2
    assert "nowhere holds no pairs" in error
    assert not (tmp_path / "blind-pairs").exists()
