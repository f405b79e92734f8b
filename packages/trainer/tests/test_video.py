"""Films of evaluations, and policies that act as in training."""

import importlib.util
import json
import subprocess

import imageio_ffmpeg
import pytest

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
