"""Films of evaluations, during training and after it, and policies that act as in training."""

import importlib.util
import json
import re
import subprocess
from typing import ClassVar

import gymnasium as gym
import imageio_ffmpeg
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from tesserl_configs import load_config
from tesserl_trainer import train
from tesserl_trainer.cli import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run of PPO on CartPole."""
    place = tmp_path_factory.mktemp("film")
    (place / "run.yaml").write_text(
        "total_steps: 64\nenvironment: {id: CartPole-v1, num_envs: 2}\nnn: {vector: {kind: mlp, hidden_sizes: [8]}}\n"
        "algorithm: ppo\nppo: {num_steps: 32, num_minibatches: 2}\nlogging: {tensorboard: false}\n"
        "evaluation: {episodes: 1, final_episodes: 1, max_episode_steps: 12}\n"
    )
    return train(load_config(place / "run.yaml"), run_dir=place / "run")


def evaluated(capfd, *arguments):
    capfd.readouterr()
    assert main(["eval", *map(str, arguments)]) == 0
    return json.loads(capfd.readouterr().out)


def decoded(film):
    """Return the frames of a film as bytes, and what ffmpeg says of it."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(film), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    size = 600 * 400 * 3
    return [done.stdout[at : at + size] for at in range(0, len(done.stdout), size)], done.stderr.decode()


def test_a_film_has_a_frame_for_each_step_and_the_name_says_step_and_return(run, capfd):
    result = evaluated(capfd, run, "--episodes", 3, "--video", 2)
    films = sorted((run / "videos").iterdir())
    assert result["videos"] == [str(film) for film in films]
    for number, film in enumerate(films):
        expected = f"{result['checkpoint']}-seed-{result['seed'] + number}-return-{result['returns'][number]:.4g}"
        assert film.name == f"{expected}.mp4"
        pictures, said = decoded(film)
        assert "600x400" in said
        assert "50 fps" in said
        assert len(pictures) == result["lengths"][number]
        assert len(set(pictures)) > 1


def test_the_option_alone_films_one_episode(run, capfd):
    assert len(evaluated(capfd, run, "--episodes", 2, "--video")["videos"]) == 1


def test_without_the_extra_one_sentence_names_it(run, capfd, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["eval", str(run), "--video"]) == 2
    assert capfd.readouterr().err.startswith('error: --video needs imageio_ffmpeg; install "tesserl-trainer[video]"')


def test_a_stochastic_policy_acts_as_in_training(run, capfd):
    greedy = [evaluated(capfd, run, "--episodes", 8)["lengths"] for _ in range(2)]
    random = [evaluated(capfd, run, "--episodes", 8, "--stochastic")["lengths"] for _ in range(2)]
    assert greedy[0] == greedy[1]
    assert random[0] == random[1] != greedy[0]


# --- during training ----------------------------------------------------------------------------------------------

FILMED = {"evaluation: {interval: 60,": "evaluation: {interval: 60, video: {interval: 120},"}


def left_by(run_dir):
    """Every byte of the last checkpoint, and the metrics without times."""
    checkpoint = max((run_dir / "checkpoints").glob("step_*"))
    files = {file.name: file.read_bytes() for file in checkpoint.iterdir() if file.name != "manifest.json"}
    rows = [row.split(",")[:3] for row in (run_dir / "metrics.csv").read_text().splitlines() if ",time/" not in row]
    return files, rows


def films_of(run_dir):
    return {film.name: film.stat().st_mtime_ns for film in sorted((run_dir / "videos").iterdir())}


@pytest.mark.parametrize("algorithm", ["ppo", "iqn"])
def test_films_during_training_change_nothing_and_a_resume_repeats_none(write_config, tmp_path, algorithm):
    plain = train(load_config(write_config(algorithm=algorithm)), run_dir=tmp_path / "plain")
    config = load_config(write_config(algorithm=algorithm, **FILMED))
    whole = train(config, run_dir=tmp_path / "whole")
    assert left_by(plain) == left_by(whole)
    names = list(films_of(whole))
    assert [re.fullmatch(r"step_(\d+)-seed-100-return-\d+.mp4", name)[1] for name in names] == [
        "000000120",
        "000000240",
    ]
    halves = train(config.model_copy(update={"total_steps": 120}), run_dir=tmp_path / "halves")
    before = films_of(halves)
    train(config, run_dir=halves, resume=True)
    after = films_of(halves)
    assert list(after) == names
    assert before.items() <= after.items()
    assert left_by(halves) == left_by(whole)


def test_a_film_has_the_first_episode_of_the_evaluation(write_config, tmp_path):
    one = {"interval: 60, episodes: 2": "interval: 120, video: {interval: 120}, episodes: 1"}
    run_dir = train(load_config(write_config(algorithm="ppo", **one)), run_dir=tmp_path / "run")
    rows = [row.split(",") for row in (run_dir / "metrics.csv").read_text().splitlines()]
    returns = [float(value) for _, name, value, _ in rows if name == "evaluation/return"]
    names = list(films_of(run_dir))
    assert [float(re.search(r"return-(.*)\.mp4", name)[1]) for name in names] == returns
    pictures, _ = decoded(run_dir / "videos" / names[0])
    assert len(pictures) == returns[0]  # a point and a picture for each step of CartPole


def test_a_film_that_cannot_be_written_ends_no_training(write_config, tmp_path, capfd):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.lock").touch()
    run_dir = tmp_path / "run"

    def block(*arguments, **options):
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imageio_ffmpeg, "write_frames", block)
        assert main(["train", str(write_config(algorithm="ppo", **FILMED)), "--run-dir", str(run_dir)]) == 0
    assert "warning: no film of step 120: [Errno 28] No space left on device" in capfd.readouterr().err
    assert list((run_dir / "videos").iterdir()) == []


class Blind(CartPoleEnv):
    """A task without pictures."""

    metadata: ClassVar = {"render_modes": []}


class Undrawn(CartPoleEnv):
    """A task that draws with a package that is not installed."""

    def render(self):
        raise gym.error.DependencyNotInstalled("pygame is not installed")


@pytest.mark.parametrize(
    ("task", "missing", "said"),
    [
        (
            "CartPole-v1",
            "imageio_ffmpeg",
            'evaluation.video: needs imageio_ffmpeg, which is not installed; install "tes',
        ),
        (
            "Blind-v0",
            "",
            "environment.id: Blind-v0 draws no pictures (its render modes are []); remove evaluation.video",
        ),
        ("Undrawn-v0", "", "Undrawn-v0 cannot be drawn (pygame is not installed); remove evaluation.video"),
    ],
)
def test_what_cannot_be_filmed_is_one_sentence_before_the_first_step(
    write_config, tmp_path, capfd, monkeypatch, task, missing, said
):
    for name, entry_point in {"Blind-v0": Blind, "Undrawn-v0": Undrawn}.items():
        monkeypatch.setitem(gym.registry, name, gym.envs.registration.EnvSpec(name, entry_point))
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == missing else find_spec(name, *rest)
    )
    config = write_config(algorithm="ppo", **FILMED, **{"CartPole-v1": task})
    assert main(["train", str(config), "--run-dir", str(tmp_path / "run")]) == 2
    assert said in capfd.readouterr().err
    assert not (tmp_path / "run/checkpoints").exists()
