"""Mistakes of published code of Beyond The Rainbow (Clark et al. 2024) of collecting and replay, each with a test."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from PIL import Image

from tesserl_collectors.collector import Collector
from tesserl_configs import load_config
from tesserl_environments import ObservationLayout
from tesserl_replay import NStepWindow
from tesserl_trainer import train
from tesserl_trainer.inspect.observe import draw, observe
from tesserl_training.replay import Replay

from . import pictures  # noqa: F401 - registers its task
from .conftest import counting_envs

MODES = list(AutoresetMode)


def collected(mode: AutoresetMode, num_steps: int, rounds: int = 14):
    """Transitions of a task that counts ``[episode, t]``, and what its policy was shown."""
    environments, shown = counting_envs(mode, (3, 2), (1, 4)), []

    def policy(observation):
        shown.append(observation.clone())
        return torch.zeros(len(observation), dtype=torch.int64)

    layout = ObservationLayout(environments.single_observation_space)
    collector, window = Collector(environments, layout, policy, seeds=[1, 1]), NStepWindow(num_steps, 0.9)
    parts = [window.extend(collector.collect(1)).clone() for _ in range(rounds)]
    return torch.cat([part for part in parts if len(part)]), torch.stack(shown)


@pytest.mark.parametrize("mode", MODES)
def test_pitfall_02_a_truncated_episode_goes_on_from_its_own_last_observation(mode):
    transitions, _ = collected(mode, 3)
    truncated = transitions[transitions["next", "truncated"].squeeze(-1)]
    assert len(truncated)
    assert not truncated["next", "terminated"].any()
    for transition in truncated:  # odd episodes are truncated, after two or four steps
        start, end = transition["observation"].tolist(), transition["next", "observation"].tolist()
        assert end[1] == start[1] + int(transition["steps_to_next_obs"])
        assert end[1] in (2, 4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_steps", [1, 3])
def test_pitfall_03_the_first_action_of_an_episode_is_chosen_on_its_first_observation(mode, num_steps):
    """There it is chosen on, and stored with, the last observation of the episode before."""
    transitions, shown = collected(mode, num_steps)
    last = {(0, 0): 3, (0, 1): 2, (1, 0): 1, (1, 1): 4}  # steps of an episode, by environment and parity
    if mode is not AutoresetMode.NEXT_STEP:  # which shows the last observation once, for a step that is no transition
        for i in range(2):
            episode, t = shown[:, i].unbind(-1)
            assert all(step < last[i, int(number) % 2] for number, step in zip(episode, t, strict=True))
    begun = transitions["observation"][:, 1] == 0
    assert begun.sum() >= 6
    assert (transitions["next", "observation"][:, 0] == transitions["observation"][:, 0]).all()  # the same episode


@pytest.mark.parametrize(("num_envs", "batch_size", "num_steps"), [(1, 7, 1), (5, 16, 3), (8, 4, 2)])
def test_pitfall_05_the_replay_ratio_is_how_often_a_transition_is_drawn(
    write_config, tmp_path, monkeypatch, num_envs, batch_size, num_steps
):
    """There one number scales both the updates and the steps between them, by the number of environments."""
    stored, drawn = [], []
    extend, batches = Replay.extend, Replay.batches

    def count_stored(replay, transitions):
        stored.append(extend(replay, transitions))
        return stored[-1]

    def count_drawn(replay, number, size):
        for batch in batches(replay, number, size):
            drawn.append(len(batch))
            yield batch

    monkeypatch.setattr(Replay, "extend", count_stored)
    monkeypatch.setattr(Replay, "batches", count_drawn)
    replay = "replay={kind: uniform, capacity: 400, warmup_steps: 40, ratio: 1.5}"
    settings = [f"environment.num_envs={num_envs}", f"iqn.num_steps={num_steps}", f"iqn.batch_size={batch_size}"]
    evaluation = ["evaluation.episodes=1", "evaluation.final_episodes=1", "evaluation.interval=1000"]
    path = write_config("CartPole-v1", **{"  update_interval: 2\n": ""})
    train(load_config(path, [*settings, *evaluation, replay]), run_dir=tmp_path / "run")
    learnt_from = sum(stored[-(-40 // num_envs) - 1 :])  # from the step on that ends the warm-up
    assert 0 <= 1.5 * learnt_from - sum(drawn) < batch_size
    assert set(drawn) == {batch_size}


@pytest.mark.parametrize("channels", ["first", "last"])
def test_pitfall_09_images_that_are_not_square_keep_their_orientation(channels):
    shape = (3, 75, 140) if channels == "first" else (75, 140, 3)
    layout = ObservationLayout(spaces.Box(0, 255, shape, np.uint8))
    image = np.random.default_rng(0).integers(256, size=(2, *shape), dtype=np.uint8)
    out = layout.empty(2)
    layout.write(image, out)
    assert out["pixels"].shape == (2, 3, 75, 140)
    assert np.array_equal(out["pixels"], image if channels == "first" else image.transpose(0, 3, 1, 2))


def test_pitfall_10_the_stacks_that_replay_draws_can_be_looked_at_before_training(write_config, tmp_path):
    """With what they lead to, just as training draws them."""
    stacked = "environment.wrappers=[{kind: frame_stack, num_frames: 3}]"
    task = {"MinAtar/Breakout-v1": "Pictures-v0"}
    config = load_config(write_config("MinAtar/Breakout-v1", **task), ["iqn.num_steps=1", stacked])
    drawn, everything = observe(config, steps=9, samples=20)
    assert drawn["pixels"].shape == (20, 3, 12, 9)
    assert torch.equal(drawn["pixels"][:, 1:], drawn["next", "pixels"][:, :2])  # one step on, one frame on
    rows = {row.numpy().tobytes() for row in everything["pixels"]}
    assert {row.numpy().tobytes() for row in drawn["pixels"]} <= rows
    draw(drawn[:2], tmp_path / "seen.png", num_frames=3)
    with Image.open(tmp_path / "seen.png") as picture:
        assert picture.width > 3 * 100  # three frames
        assert len(picture.convert("L").getcolors()) > 2  # titles, and dots on black
