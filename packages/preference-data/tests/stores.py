"""Stores of trajectories and pairs whose every number is known, with pictures, without an environment."""

from pathlib import Path

import numpy as np
import torch
from tensordict import TensorDict

from tesserl_preference_data import cut_segments, make_pairs, save_pairs
from tesserl_preference_data.pictures import encode_frame
from tesserl_preference_data.trajectory_writer import TrajectoryWriter


def picture(shade: int) -> np.ndarray:
    return np.full((12, 18, 3), shade % 256, np.uint8)


def trajectory(number: int, length: int, *, frames: bool = True) -> TensorDict:
    """Observation ``[number, t]``, reward ``number`` at each step, a picture whose shade is ``10 * number + t``."""
    t = torch.arange(length)
    ends = (t == length - 1).unsqueeze(1)
    steps = {
        "observation": torch.stack([torch.full((length,), float(number)), t.float()], dim=1),
        "action": t % 3,
        "action_log_prob": torch.full((length,), -0.5),
        "next": {
            "reward": torch.full((length, 1), float(number)),
            "terminated": ends,
            "truncated": torch.zeros_like(ends),
        },
    }
    if frames:
        steps["frame"] = torch.stack([encode_frame(picture(10 * number + step)) for step in range(length)])
    return TensorDict(steps, [length])


def write_trajectories(path: Path, lengths: list[int], *, starts: list[int] | None = None, frames: bool = True) -> Path:
    with TrajectoryWriter(path, source={"policy": "known"}) as writer:
        for number, length in enumerate(lengths):
            start = writer.next_start + number if starts is None else starts[number]
            writer.add(trajectory(number, length, frames=frames), start)
    return path


def write_pairs(path: Path, num_pairs: int = 10, *, frames: bool = True) -> Path:
    """Unlabelled pairs of whole trajectories of 3 to 7 steps."""
    steps = [trajectory(number, 3 + number % 5, frames=frames) for number in range(6)]
    generator = torch.Generator().manual_seed(1)
    pool = cut_segments(steps, extra_keys=["frame"] if frames else [], generator=generator)
    return save_pairs(make_pairs(pool, num_pairs=num_pairs, labelled=False, generator=generator), path)
