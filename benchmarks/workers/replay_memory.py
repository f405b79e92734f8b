"""Fills a replay with stacks of four frames of 84 x 84, no two of them equal, and prints its peak memory in bytes.

The first argument is the number of transitions. ``before`` is the peak when everything is imported.
"""

import json
import sys
from pathlib import Path

import torch
from tensordict import TensorDict
from torchrl.data import TensorDictReplayBuffer

from tesserl_replay import FrameStorage, NStepWindow

ENVS, STACK, SIZE, NUM_STEPS, EPISODE = 64, 4, (84, 84), 3, 500


def peak() -> int:
    """Return the most memory that this process has had resident, as the operating system counts it."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def main(capacity: int) -> None:
    torch.set_num_threads(1)
    buffer = TensorDictReplayBuffer(storage=FrameStorage(capacity, num_frames=STACK))
    window = NStepWindow(NUM_STEPS, 0.99)
    generator = torch.Generator().manual_seed(0)
    flag, before, stored, step = torch.zeros(ENVS, 1, 1, dtype=torch.bool), peak(), 0, 0
    stacks = torch.randint(256, (ENVS, STACK, *SIZE), dtype=torch.uint8, generator=generator)
    while stored < capacity + ENVS:  # the last ones overwrite the first ones
        step += 1
        new = torch.randint(256, (ENVS, 1, *SIZE), dtype=torch.uint8, generator=generator)
        following, ended = torch.cat([stacks[:, 1:], new], dim=1), torch.full_like(flag, step % EPISODE == 0)
        outcome = {
            "pixels": following.unsqueeze(1),
            "reward": torch.ones(ENVS, 1, 1),
            "terminated": ended,
            "truncated": flag,
            "done": ended,
        }
        steps = {
            "pixels": stacks.unsqueeze(1),
            "action": torch.ones(ENVS, 1, dtype=torch.int64),
            "mask": torch.ones(ENVS, 1, dtype=torch.bool),
            "next": outcome,
        }
        transitions = window.extend(TensorDict(steps, [ENVS, 1]))
        if len(transitions):
            buffer.extend(transitions)
        stored += len(transitions)
        stacks = following
        if step % EPISODE == 0:  # a reset repeats its first frame
            stacks = new.expand(-1, STACK, -1, -1)
    print(
        json.dumps({"before": before, "peak": peak(), "transitions": len(buffer), "frames": buffer.storage.num_stored})
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
