"""Prioritised against uniform replay: a whole ``sample`` of torchrl's buffer, and the priority update.

For pixels: stacks from a storage that keeps every frame once, against a plain gather of as many frames; and its memory.
"""

import gc
import logging
from itertools import cycle
from pathlib import Path

import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer

from common.harness import HEADER, Bar, Comparison, arguments, compare, finish, repeated
from tesserl_replay import FrameStorage, NStepWindow, PrioritizedSampler

CAPACITY, BATCH, CHUNK = 2**20, 256, 2**18
PIXELS, ENVS, STACK, SIZE, NUM_STEPS = 2**14, 64, 4, (84, 84), 3


def transitions(size: int) -> TensorDict:
    """Make transitions of CartPole's shapes."""
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
    """Make a rollout as the collector passes it to the n-step window."""
    shape = (num_envs, num_steps)
    batch = transitions(num_envs * num_steps).reshape(*shape).exclude("steps_to_next_obs")
    return batch.set("mask", torch.ones(shape, dtype=torch.bool))


def pixels(frames: torch.Tensor, step: int) -> TensorDict:
    """Transitions of ``NUM_STEPS`` steps of all environments, from frames ``[steps, ENVS, 84, 84]``."""
    following = transitions(ENVS)["next"].exclude("observation")
    following["pixels"] = frames[step + NUM_STEPS : step + NUM_STEPS + STACK].transpose(0, 1)
    root = {"pixels": frames[step : step + STACK].transpose(0, 1), "action": torch.zeros(ENVS, dtype=torch.int64)}
    return TensorDict({**root, "next": following}, [ENVS])


def anonymous_memory() -> int:
    """Return the resident anonymous bytes of this process; 0 if the system does not report them."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def filled(storage: LazyTensorStorage, *keys: object) -> LazyTensorStorage:
    """Return a storage filled with vector steps of random frames, with some or all keys."""
    generator, steps = torch.Generator().manual_seed(0), STACK + NUM_STEPS
    frames = torch.randint(256, (steps, ENVS, *SIZE), dtype=torch.uint8, generator=generator)
    for start in range(0, PIXELS, ENVS):
        transitions = pixels(frames, 0)
        storage.set(torch.arange(start, start + ENVS), transitions.select(*keys) if keys else transitions)
        frames = torch.cat([frames[1:], torch.randint(256, frames[:1].shape, dtype=torch.uint8, generator=generator)])
    return storage


def frame_part(seconds: float, rounds: int) -> tuple[list[Comparison], dict[str, float]]:
    """Measure reading and writing pixels, and the bytes of a transition."""
    before = anonymous_memory()
    ours = filled(FrameStorage(PIXELS, num_frames=STACK))
    gc.collect()
    each = (anonymous_memory() - before) / PIXELS
    print(
        f"\n{each:.0f} bytes per transition, {2**20 * each / 2**30:.2f} GiB for 2^20 (RssAnon of {PIXELS} transitions)"
    )
    stacks = filled(FrameStorage(PIXELS, num_frames=STACK), "pixels", ("next", "pixels"), "action")
    ordinary = filled(LazyTensorStorage(PIXELS))
    indices = cycle(torch.randint(PIXELS, (64, BATCH)))
    flat = torch.randint(256, (PIXELS, SIZE[0] * SIZE[1]), dtype=torch.uint8)
    gathers = cycle(torch.randint(PIXELS, (64, BATCH * 2 * STACK)))
    batch = pixels(torch.randint(256, (STACK + NUM_STEPS, ENVS, *SIZE), dtype=torch.uint8), 0)
    places = cycle(torch.arange(PIXELS).view(-1, ENVS))
    rows = [
        (
            "256 x 2 stacks, by index_select",
            lambda: flat.index_select(0, next(gathers)),
            lambda: stacks.get(next(indices)),
            Bar("cost", 1.3),
        ),
        (
            "256 whole transitions, by index_select",
            lambda: flat.index_select(0, next(gathers)),
            lambda: ours.get(next(indices)),
            Bar("cost"),
        ),
        (
            "256 whole transitions, by LazyTensorStorage",
            lambda: ordinary.get(next(indices)),
            lambda: ours.get(next(indices)),
            Bar("cost"),
        ),
        (
            "writing 64 transitions, by LazyTensorStorage",
            lambda: ordinary.set(next(places), batch),
            lambda: ours.set(next(places), batch),
            Bar("cost"),
        ),
    ]
    comparisons = [
        compare(name, repeated(peer, seconds), repeated(own, seconds), bar, rounds=rounds)
        for name, peer, own, bar in rows
    ]
    return comparisons, {"bytes_per_transition": each, "gibibytes_of_2_20": 2**20 * each / 2**30}


def main() -> tuple[list[Comparison], dict[str, float]]:
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
    comparisons = [
        compare(name, repeated(peer, options.seconds), repeated(ours, options.seconds), bar, rounds=options.rounds)
        for name, peer, ours, bar in rows
    ]
    of_frames, memory = frame_part(options.seconds, options.rounds)
    return comparisons + of_frames, memory


if __name__ == "__main__":
    rows, memory = main()
    finish("replay", rows, frames=memory)
