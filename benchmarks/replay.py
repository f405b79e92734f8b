"""Prioritised against uniform replay: a whole ``sample`` of torchrl's buffer, and the priority update."""

import logging

import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer

from common.harness import HEADER, Bar, Comparison, arguments, compare, finish, repeated
from tesserl_iqn.replay import NStepWindow, PrioritizedSampler

CAPACITY, BATCH, CHUNK = 2**20, 256, 2**18


def transitions(size: int) -> TensorDict:
    """What CartPole leaves in a replay buffer."""
    flag = torch.zeros(size, 1, dtype=torch.bool)
    following = {
        "observation": torch.randn(size, 4),
        "reward": torch.randn(size, 1),
        "terminated": flag,
        "truncated": flag,
        "done": flag,
    }
    root = {
        "observation": torch.randn(size, 4),
        "action": torch.zeros(size, dtype=torch.int64),
        "steps_to_next_obs": torch.ones(size, 1, dtype=torch.int64),
        "next": following,
    }
    return TensorDict(root, [size])


def full_buffer(**options: object) -> TensorDictReplayBuffer:
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(CAPACITY), **options)
    for _ in range(CAPACITY // CHUNK):
        buffer.extend(transitions(CHUNK))
    return buffer


def chunk(num_envs: int, num_steps: int) -> TensorDictBase:
    """What the collector hands to the n-step window."""
    shape = (num_envs, num_steps)
    batch = transitions(num_envs * num_steps).reshape(*shape).exclude("steps_to_next_obs")
    return batch.set("mask", torch.ones(shape, dtype=torch.bool))


def main() -> list[Comparison]:
    options = arguments(__doc__, seconds=0.5).parse_args()
    torch.set_num_threads(1)
    logging.getLogger("torchrl").setLevel(logging.ERROR)
    uniform = full_buffer()
    prioritized = full_buffer(sampler=PrioritizedSampler(CAPACITY), priority_key="td_error")
    prioritized.update_priority(torch.arange(CAPACITY), torch.rand(CAPACITY) ** 2)
    errors, new = torch.rand(BATCH), transitions(8)

    def sample_and_update() -> None:
        batch = prioritized.sample(BATCH)
        batch.set("td_error", errors)
        prioritized.update_tensordict_priority(batch)

    window, collected = NStepWindow(10, 0.99), chunk(8, 1)

    def sample() -> None:
        uniform.sample(BATCH)

    rows = [
        ("prioritised sample + update, by sample", sample, sample_and_update, Bar("cost", 4.0)),
        ("prioritised by uniform extend(8)", lambda: uniform.extend(new), lambda: prioritized.extend(new), Bar("cost")),
        ("n-step window, 8 x 1, n = 10, by sample", sample, lambda: window.extend(collected), Bar("cost")),
    ]
    print(HEADER)
    return [
        compare(name, repeated(peer, options.seconds), repeated(ours, options.seconds), bar, rounds=options.rounds)
        for name, peer, ours, bar in rows
    ]


if __name__ == "__main__":
    finish("replay", main())
