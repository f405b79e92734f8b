"""Mistakes of published code of Beyond The Rainbow (Clark et al. 2024) that concern collecting, each with a test."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from tesserl_iqn import NStepWindow
from tesserl_trainer.run.collect import Collector
from tesserl_trainer.run.observations import ObservationLayout

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


@pytest.mark.parametrize("channels", ["first", "last"])
def test_pitfall_09_images_that_are_not_square_keep_their_orientation(channels):
    shape = (3, 75, 140) if channels == "first" else (75, 140, 3)
    layout = ObservationLayout(spaces.Box(0, 255, shape, np.uint8))
    image = np.random.default_rng(0).integers(256, size=(2, *shape), dtype=np.uint8)
    out = layout.empty(2)
    layout.write(image, out)
    assert out["pixels"].shape == (2, 3, 75, 140)
    assert np.array_equal(out["pixels"], image if channels == "first" else image.transpose(0, 3, 1, 2))
