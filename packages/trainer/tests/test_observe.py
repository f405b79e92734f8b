"""``tesserl observe``: the picture and the numbers of the observations that a network gets."""

import pytest
import torch
from PIL import Image

from tesserl_configs import load_config
from tesserl_trainer.cli import main
from tesserl_trainer.inspect.observe import _panels, draw, observe, table

pytestmark = pytest.mark.kernel_free


def test_the_command_writes_a_picture_and_a_line_for_each_key(write_config, tmp_path, capsys):
    path, out = write_config("MinAtar/Breakout-v1"), tmp_path / "seen.png"
    assert main(["observe", str(path), "--out", str(out), "--steps", "12", "--samples", "2"]) == 0
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    cells = {line[0]: [cell.strip() for cell in line[1:] if cell.strip()] for line in lines}
    assert cells["pixels"][:3] == ["uint8", "4 x 10 x 10", "0"]
    assert cells["pixels"][4] == cells["next.pixels"][4] == "255"  # planes that are 0 or 1 become 0 or 255
    assert cells["next.reward"][:2] == ["float32", "1"]
    with Image.open(out) as picture:
        assert picture.width > 600  # four planes side by side
        assert picture.height > 500  # two transitions, two rows each


def test_transitions_are_those_of_training(write_config):
    config = load_config(write_config("CartPole-v1"), ["iqn.num_steps=4", "iqn.discount=0.5"])
    drawn, everything = observe(config, steps=9, samples=30)
    full = everything[everything["steps_to_next_obs"][:, 0] == 4]
    assert len(full) == 3 * (9 - 3)
    assert full["next", "reward"].unique().tolist() == [1 + 0.5 + 0.25 + 0.125]
    rows = {tuple(row) for row in everything["observation"].tolist()}
    assert {tuple(row) for row in drawn["observation"].tolist()} <= rows
    assert len(drawn) == 30


def test_too_few_steps_and_unbounded_actions_are_named(write_config, tmp_path, capsys):
    arguments = ["observe", str(write_config("CartPole-v1")), "--out", str(tmp_path / "x.png"), "--steps", "2"]
    assert main(arguments) == 2
    assert "steps: expected at least iqn.num_steps = 3, got 2" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()


def test_what_cannot_be_written_or_looked_at_is_refused_first(write_config, tmp_path, capsys):
    config, place = str(write_config("CartPole-v1")), tmp_path / "nowhere"
    assert main(["observe", config, "--out", str(place / "x.png")]) == 2
    assert f"there is no directory {place}; make it first: mkdir -p {place}" in capsys.readouterr().err
    assert main(["observe", config, "--out", str(tmp_path / "x.png"), "--samples", "100000"]) == 2
    assert "100000 is not in the range 1<=x<=32" in capsys.readouterr().err


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_algorithms_without_replay_are_shown_steps(write_config, algorithm):
    _, everything = observe(load_config(write_config("CartPole-v1", algorithm)), steps=5, samples=2)
    assert len(everything) == 15
    assert everything["steps_to_next_obs"].unique().tolist() == [1]


def test_continuous_actions_and_vectors_are_drawn(write_config, tmp_path):
    drawn, everything = observe(load_config(write_config("Pendulum-v1", "ppo")), steps=5, samples=1)
    draw(drawn, tmp_path / "pendulum.png", num_frames=1)
    with Image.open(tmp_path / "pendulum.png") as picture:
        picture.verify()
    [line] = [line.split() for line in table(everything).splitlines() if line.startswith("action")]
    assert line[1:3] == ["float32", "1"]


def test_frames_stand_side_by_side_oldest_first_in_their_colours():
    grey = {"pixels": torch.arange(4).reshape(4, 1, 1).expand(4, 2, 3)}
    assert [(title, int(image[0, 0])) for title, image in _panels(grey, 4)] == [
        ("frame 1", 0), ("frame 2", 1), ("frame 3", 2), ("frame 4", 3)
    ]  # fmt: skip
    colour = {"pixels": torch.arange(6).reshape(6, 1, 1).expand(6, 2, 3), "observation": torch.zeros(5)}
    panels = list(_panels(colour, 2))
    assert [title for title, _ in panels] == ["frame 1", "frame 2", "observation"]
    assert panels[1][1].shape == (2, 3, 3)
    assert panels[1][1][0, 0].tolist() == [3, 4, 5]
    planes = list(_panels({"pixels": torch.zeros(8, 2, 3)}, 2))
    assert planes[5][0] == "frame 2, channel 1"
