"""``tesserl collect``: what is stored of a policy's episodes, and that nothing half-written is ever read."""

import json
import math
from pathlib import Path

import gymnasium as gym
import pytest
import torch

from tesserl_configs import load_config
from tesserl_environments import SeedStart
from tesserl_preference_data import StoreError
from tesserl_preference_data.pictures import encode_frame
from tesserl_preference_data.trajectories import load_trajectories
from tesserl_trainer import train
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.cli import main
from tesserl_trainer.running import playing
from tesserl_trainer.running.collect import collect
from tesserl_training.checkpoints.checkpoint import load_networks

from .conftest import Counting, config_text

MEMORY = {"heads: {hidden_sizes: [11]}": "heads: {hidden_sizes: [11]}\n  memory: {kind: gru, hidden_size: 7}"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """A tiny run of each kind, by algorithm; ``gru`` is PPO with a memory."""
    root = tmp_path_factory.mktemp("runs")
    found = {}
    for name in ("iqn", "ppo", "gru"):
        text = config_text("CartPole-v1", "iqn" if name == "iqn" else "ppo")
        for old, new in MEMORY.items() if name == "gru" else ():
            text = text.replace(old, new)
        (root / f"{name}.yaml").write_text(text)
        found[name] = train(load_config(root / f"{name}.yaml", ["total_steps=60"]), run_dir=root / name)
    return found


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(config_text("CartPole-v1", "ppo"))
    return path


@pytest.fixture
def counting():
    """A task that draws nothing and whose starts no seed repeats; episodes last 3 and 5 steps."""
    gym.register("Counting-v0", Counting, kwargs={"lengths": (3, 5)})
    yield "environment.id=Counting-v0"
    del gym.registry["Counting-v0"]


def check_episodes(stored) -> None:
    """Assert the properties of every store."""
    for episode, line in zip(stored, stored.episodes, strict=True):
        done = episode["next", "done"].squeeze(-1)
        assert done.tolist() == [False] * (line.length - 1) + [True]
        assert torch.equal(done, (episode["next", "terminated"] | episode["next", "truncated"]).squeeze(-1))
        assert episode["next", "reward"].sum().item() == line.episode_return


@pytest.mark.parametrize("name", ["iqn", "ppo", "gru"])
@pytest.mark.parametrize("stochastic", [True, False])
def test_whole_episodes_of_every_policy_are_stored(runs, tmp_path, name, stochastic):
    result = collect(runs[name], out=tmp_path / "store", episodes=5, stochastic=stochastic)
    stored = load_trajectories(tmp_path / "store")
    check_episodes(stored)
    assert (len(stored), stored.num_steps, stored.starts) == (5, result["steps"], [0, 1, 2, 3, 4])
    assert result["return_mean"] == pytest.approx(stored.num_steps / 5)  # CartPole: a reward of 1 a step
    assert stored.keys == ["observation"]
    assert stored[0]["observation"].shape == (stored.episodes[0].length, 4)
    is_known = torch.cat([episode["action_log_prob"] for episode in stored]).isfinite()
    assert is_known.all() if stochastic and name != "iqn" else not is_known.any()
    [source] = stored.manifest["sources"]
    assert source["algorithm"] == ("iqn" if name == "iqn" else "ppo")
    assert stored.manifest["environment"]["id"] == "CartPole-v1"


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
def test_log_probabilities_are_those_of_what_chose_the_actions(runs, tmp_path, epsilon):
    collect(runs["ppo"], out=tmp_path / "store", episodes=4, epsilon=epsilon, checkpoint="latest")
    config = load_config(runs["ppo"] / "config.yaml")
    algorithm = Task(config).agent()
    path = next((runs["ppo"] / "checkpoints").glob("step_*60"))
    algorithm.load_networks(load_networks(path), path)
    for episode in load_trajectories(tmp_path / "store"):
        [logits] = algorithm.policy.network.policy_parameters(episode["observation"].clone())
        probability = logits.softmax(-1).gather(1, episode["action"].unsqueeze(1)).squeeze(1)
        expected = ((1 - epsilon) * probability + epsilon / 2).log()
        torch.testing.assert_close(episode["action_log_prob"], expected)


@pytest.mark.parametrize(
    ("task", "density"), [("CartPole-v1", 1 / 2), ("LunarLander-v3", 1 / 4), ("Pendulum-v1", 1 / 4)]
)
def test_random_actions_need_no_run_and_are_uniform(tmp_path, config, task, density):
    text = config_text(task, "ppo")
    config.write_text(text)
    collect(config, out=tmp_path / "store", episodes=3, random=True, seed=4)
    stored = load_trajectories(tmp_path / "store")
    for episode in stored:
        torch.testing.assert_close(episode["action_log_prob"], torch.full((len(episode),), math.log(density)))
    actions = torch.cat([episode["action"] for episode in stored])
    assert actions.dtype == (torch.float32 if task == "Pendulum-v1" else torch.int64)
    assert len(actions.unique()) > 1
    assert stored.manifest["sources"] == [{"policy": "random", "seed": 4}]
    if task == "Pendulum-v1":
        assert {episode.length for episode in stored.episodes} == {50}  # evaluation.max_episode_steps
        assert stored[0]["next", "truncated"][-1].item()
        assert not stored[0]["next", "terminated"][-1].item()


def test_steps_are_reached_by_whole_episodes_and_not_by_more_than_are_needed(runs, tmp_path):
    result = collect(runs["iqn"], out=tmp_path / "store", steps=70)
    stored = load_trajectories(tmp_path / "store")
    assert stored.num_steps == result["steps"] >= 70
    assert stored.num_steps - stored.episodes[-1].length < 70


@pytest.mark.parametrize("amount", [{"episodes": 6}, {"steps": 60}])
def test_who_plays_beside_whom_changes_no_episode(runs, tmp_path, amount):
    """Episodes that end first are not preferred, whatever the number of environments."""
    for number in (1, 4):
        options = {"stochastic": False, "overrides": [f"evaluation.num_envs={number}"], **amount}
        collect(runs["iqn"], out=tmp_path / str(number), **options)
    one, four = load_trajectories(tmp_path / "1"), load_trajectories(tmp_path / "4")
    assert one.episodes == four.episodes
    assert torch.equal(
        torch.cat([each["observation"] for each in one]), torch.cat([each["observation"] for each in four])
    )


def test_episodes_of_one_start_begin_alike_and_others_do_not(runs, tmp_path):
    collect(runs["ppo"], out=tmp_path / "store", episodes=6, same_start=3)
    stored = load_trajectories(tmp_path / "store")
    assert stored.starts == [0, 0, 0, 1, 1, 1]
    firsts = [episode["observation"][0].tolist() for episode in stored]
    assert firsts[0] == firsts[1] == firsts[2] != firsts[3] == firsts[4] == firsts[5]


def test_starts_that_no_seed_repeats_are_refused(tmp_path, config, counting):
    options = {"out": tmp_path / "store", "episodes": 4, "random": True}
    options["overrides"] = [counting, "evaluation.num_envs=1"]
    with pytest.raises(ValueError, match="trajectories of a group must share their first observation"):
        collect(config, same_start=2, **options)
    collect(config, **options)
    assert [episode.length for episode in load_trajectories(tmp_path / "store").episodes] == [5, 3, 5, 3]


def test_a_store_is_extended_by_new_starts_and_nothing_else(runs, tmp_path, config):
    store = tmp_path / "store"
    collect(runs["ppo"], out=store, episodes=3)
    before = {file.name: file.read_bytes() for file in store.iterdir() if file.name != "manifest.json"}
    first = [episode.clone() for episode in load_trajectories(store)]
    assert collect(runs["iqn"], out=store, episodes=2)["episodes_in_store"] == 5
    stored = load_trajectories(store)
    check_episodes(stored)
    assert stored.starts == [0, 1, 2, 3, 4]
    assert [episode.source for episode in stored.episodes] == [0, 0, 0, 1, 1]
    assert [source["algorithm"] for source in stored.manifest["sources"]] == ["ppo", "iqn"]
    assert all(bool((old == new).all()) for old, new in zip(first, stored, strict=False))
    assert {name: (store / name).read_bytes() for name in before} == before
    files = {file.name: file.read_bytes() for file in store.iterdir()}
    with pytest.raises(StoreError, match=r"store holds episodes of .*CartPole-v1.*got .*LunarLander-v3"):
        collect(config, out=store, episodes=1, random=True, overrides=["environment.id=LunarLander-v3"])
    with pytest.raises(StoreError, match=r"store holds other steps: expected \[\], got \['frame \[2048\]"):
        collect(config, out=store, episodes=1, random=True, frames=True)
    assert {file.name: file.read_bytes() for file in store.iterdir()} == files


def test_pictures_show_the_state_that_was_acted_on(runs, tmp_path):
    collect(runs["ppo"], out=tmp_path / "store", episodes=3, frames=True)
    stored = load_trajectories(tmp_path / "store")
    assert stored.has_frames
    environment = gym.make("CartPole-v1", render_mode="rgb_array")
    for start, episode in enumerate(stored):
        seed, _ = SeedStart(3).arguments(start)  # the seed of the configuration
        environment.reset(seed=seed)
        for step, action in zip(episode, episode["action"].tolist(), strict=True):
            assert torch.equal(step["frame"], encode_frame(environment.render()))
            environment.step(action)
    assert stored.manifest["environment"]["kwargs"] == {}


def test_a_task_that_draws_nothing_says_so(tmp_path, config, counting, monkeypatch):
    options = {"out": tmp_path / "store", "episodes": 1, "random": True, "frames": True}
    with pytest.raises(ValueError, match=r"Counting-v0 draws no pictures .* are \[\]\); collect with --no-frames"):
        collect(config, overrides=[counting], **options)

    def render(self):
        raise gym.error.DependencyNotInstalled("pygame is not installed")

    monkeypatch.setattr("gymnasium.vector.SyncVectorEnv.render", render)
    with pytest.raises(ValueError, match=r"CartPole-v1 cannot be drawn \(pygame is not installed\)"):
        collect(config, **options)
    assert not (tmp_path / "store").exists()


def test_what_was_whole_is_kept_when_collecting_is_interrupted(runs, tmp_path, monkeypatch):
    play = playing.play_episodes

    def interrupted(*args, **options):
        episodes = play(*args, **options)
        yield next(episodes)
        yield next(episodes)
        raise KeyboardInterrupt

    monkeypatch.setattr(playing, "play_episodes", interrupted)
    assert main(["collect", str(runs["ppo"]), "--out", str(tmp_path / "store"), "--episodes", "9"]) == 130
    check_episodes(load_trajectories(tmp_path / "store"))
    assert len(load_trajectories(tmp_path / "store")) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["RUN"], 2, "name either --episodes or --steps"),
        (["RUN", "--episodes", "2", "--steps", "9"], 2, "name either --episodes or --steps"),
        (["CONFIG", "--episodes", "2"], 2, "has no trained policy; name a run, or play with --random"),
        (["RUN", "--episodes", "3", "--same-start", "2"], 2, "episodes must be a multiple of same_start, got 3 and 2"),
        (["RUN", "--episodes", "2", "--checkpoint", "step_7"], 2, "no checkpoint 'step_7'; there are: step_"),
        (["RUN", "--episodes", "2", "--starts", "state"], 2, "CartPoleEnv has no state to set"),
        (["RUN", "--episodes", "2", "--epsilon", "1"], 2, "--epsilon"),
        (["NOWHERE", "--episodes", "2"], 2, "does not exist"),
    ],
)
def test_mistakes_are_named_and_make_nothing(runs, config, tmp_path, capfd, arguments, code, message):
    names = {"RUN": str(runs["ppo"]), "CONFIG": str(config), "NOWHERE": str(tmp_path / "nowhere")}
    out = tmp_path / "store"
    assert main(["collect", *(names.get(each, each) for each in arguments), "--out", str(out)]) == code
    error = capfd.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either episodes or steps must be said, got None and None"),
        ({"episodes": 0}, "episodes must be at least 1, got 0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": 5, "same_start": 0}, "same_start must be at least 1, got 0"),
        ({"steps": 5, "epsilon": 1.0}, r"epsilon must be in \[0, 1\), got 1.0; for 1 play at random"),
        ({"steps": 5, "starts": "level"}, "starts must be seed or state, got 'level'"),
    ],
)
def test_options_out_of_their_range_are_refused(runs, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        collect(runs["ppo"], out=tmp_path / "store", **options)


def test_the_command_prints_what_it_did(runs, tmp_path, capfd):
    out = str(tmp_path / "store")
    assert main(["collect", str(runs["iqn"]), "--out", out, "--episodes", "2", "--greedy", "--epsilon", "0.5"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert (result["path"], result["episodes"], result["starts"]) == (out, 2, 2)
