"""Read episodes for pairs: stores of ``tesserl collect``, or Minari datasets."""

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase

from tesserl_configs import ConfigError
from tesserl_environments import ObservationLayout
from tesserl_preference_data import StoreError
from tesserl_preference_data.files import NoStoreError
from tesserl_preference_data.trajectories import load_trajectories

MINARI = "minari:"
"""Prefix of the name of a dataset, such as ``minari:mujoco/hopper/medium-v0``."""


@dataclass(frozen=True)
class Episodes:
    """Episodes ``[T]`` with ``action``, ``("next", "reward")`` and their observation keys."""

    trajectories: list[TensorDictBase]
    starts: list[int]  # number of the start; equal for episodes with the same start
    keys: list[str]
    has_frames: bool


def read_episodes(sources: Sequence[str | Path], *, download: bool = False) -> Episodes:
    """Read stores of trajectories and Minari datasets (``minari:NAME``); all must have the same observation keys."""
    read = [
        _read_minari(str(each), download) if str(each).startswith(MINARI) else _read_store(each) for each in sources
    ]
    trajectories: list[TensorDictBase] = []
    starts: list[int] = []
    for name, part in zip(sources, read, strict=True):
        expected, got = _layout(read[0]), _layout(part)
        if got != expected:
            raise StoreError(f"{name}: expected steps like those of {sources[0]}, {expected}, got {got}")
        shift = 1 + max(starts, default=-1)
        trajectories += part.trajectories
        starts += [start + shift for start in part.starts]
    return Episodes(trajectories, starts, read[0].keys, all(part.has_frames for part in read))


def _layout(episodes: Episodes) -> dict[str, Any]:
    first = episodes.trajectories[0]
    return {key: (list(first[key].shape[1:]), str(first[key].dtype)) for key in (*episodes.keys, "action")}


def _read_store(path: str | Path) -> Episodes:
    stored = load_trajectories(path)
    return Episodes(list(stored), stored.starts, stored.keys, stored.has_frames)


def _read_minari(name: str, download: bool) -> Episodes:
    if importlib.util.find_spec("minari") is None:
        raise ConfigError(f'{name} needs Minari; install "tesserl-trainer[minari]" (Python 3.11 or newer)')
    minari = importlib.import_module("minari")
    try:
        dataset = minari.load_dataset(name.removeprefix(MINARI), download=download)
    except FileNotFoundError as error:
        raise NoStoreError(f"{name} is not on this machine; fetch it with --download ({error})") from error
    layout = ObservationLayout(dataset.observation_space, action_space=dataset.action_space)
    trajectories = [_trajectory(episode, layout) for episode in dataset.iterate_episodes()]
    firsts: dict[bytes, int] = {}  # datasets do not record shared starts, so first observations are compared
    starts = []
    for trajectory in trajectories:
        first = b"".join(trajectory[key][0].numpy().tobytes() for key in layout.keys)
        starts.append(firsts.setdefault(first, len(firsts)))
    return Episodes(trajectories, starts, list(layout.keys), has_frames=False)


def _trajectory(episode: Any, layout: ObservationLayout) -> TensorDictBase:
    """Convert an episode of a dataset; drop its last observation, which has no action."""
    length = len(episode)
    arrays = layout.empty(length)
    layout.write(_head(episode.observations, length), arrays)
    action = np.asarray(episode.actions)
    action = action.astype(np.float32 if np.issubdtype(action.dtype, np.floating) else np.int64)
    outcome = {"reward": np.asarray(episode.rewards, np.float32)}
    outcome |= {"terminated": episode.terminations, "truncated": episode.truncations}
    following = {name: torch.from_numpy(np.asarray(values)).reshape(length, 1) for name, values in outcome.items()}
    observation = {key: torch.from_numpy(array) for key, array in arrays.items()}
    return TensorDict({**observation, "action": torch.from_numpy(action), "next": following}, [length])


def _head(observations: Any, length: int) -> Any:
    if isinstance(observations, dict):
        return {name: _head(values, length) for name, values in observations.items()}
    return observations[:length]
