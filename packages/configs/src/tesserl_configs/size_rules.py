"""Rules about products of keys that would exceed the memory of any machine, although each number is valid."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from tesserl_configs.base import plain
from tesserl_configs.errors import Problem
from tesserl_configs.fusion import Trunk
from tesserl_configs.layers import TransformerOptions
from tesserl_configs.limits import MOST_THREADS
from tesserl_configs.nn import NNConfig
from tesserl_configs.run_keys import Rule, RunKeys

MOST_WEIGHTS = 2**31
"""Largest number of weights of one part of a network: 8 GiB in float32, 32 GiB with Adam and gradients."""
MOST_TRAJECTORIES = 1_000_000
MOST_PAIRS = 10_000_000
MOST_QUANTILE_PAIRS = 10_000_000_000
"""Largest number of pairs of target and prediction in one loss: 40 GB in float32."""
MOST_ROLLOUT_STEPS = 1_000_000_000
MOST_IMAGE_BYTES = 2**30
"""Largest size of one observation."""
MOST_REPLAY_BYTES = 2**46
"""Largest size of a replay buffer on disk: 64 TiB."""
MOST_SEGMENT_STEPS = 1_000_000_000


def networks_fit_into_memory(config: RunKeys) -> Iterator[Problem]:
    """Check that the weights of each part of the network fit into memory."""
    for path, weights in _weights(config.nn):
        if weights > MOST_WEIGHTS:
            yield Problem(
                path,
                f"expected at most {plain(MOST_WEIGHTS)} weights between its layers, got {weights:,}; "
                "take fewer or smaller layers",
            )


def environments_have_a_process_each(config: RunKeys) -> Iterator[Problem]:
    """Check that async environments do not need too many processes."""
    environment = config.environment
    if environment.vectorization == "async" and environment.num_envs > MOST_THREADS:
        yield Problem(
            "environment.num_envs",
            f"expected at most {MOST_THREADS} where environment.vectorization is async, a process for each, "
            f"got {environment.num_envs}; choose vectorization sync, or fewer",
        )


def images_fit_into_memory(config: RunKeys) -> Iterator[Problem]:
    """Check that an observation, a stack of images, fits into memory."""
    for path, size in _image_bytes(config):
        if size > MOST_IMAGE_BYTES:
            yield Problem(
                path, f"expected an observation of at most {_shown(MOST_IMAGE_BYTES)}, got {_shown(size)}; shrink it"
            )


def rollouts_fit_into_memory(config: RunKeys) -> Iterator[Problem]:
    """Check that a rollout of ppo fits into memory."""
    steps = config.environment.num_envs * config.ppo.num_steps
    if steps > MOST_ROLLOUT_STEPS:
        yield Problem(
            "ppo.num_steps",
            f"expected environment.num_envs * ppo.num_steps of at most {plain(MOST_ROLLOUT_STEPS)}, got {steps}; "
            "a rollout is kept in memory",
        )


def losses_fit_into_memory(config: RunKeys) -> Iterator[Problem]:
    """Check that the pairs of targets and predictions of iqn fit into memory."""
    iqn = config.iqn
    taus, targets = iqn.num_taus, iqn.num_target_taus
    if iqn.num_fixed_quantiles is not None:
        taus = targets = iqn.num_fixed_quantiles
    if iqn.batch_size * taus * targets > MOST_QUANTILE_PAIRS:
        yield Problem(
            "iqn.batch_size",
            f"expected at most {plain(MOST_QUANTILE_PAIRS)} errors in a loss, got {iqn.batch_size} transitions * "
            f"{taus} predictions * {targets} targets; take fewer",
        )


def replays_fit_on_a_disk(config: RunKeys) -> Iterator[Problem]:
    """Check that the images of all stored transitions fit on a disk."""
    sizes = [size for _, size in _image_bytes(config)]
    if not sizes:
        return
    total = config.replay.capacity * sizes[-1] // config.environment.stacked_frames  # lower bound: with shared frames
    if total > MOST_REPLAY_BYTES:
        yield Problem(
            "replay.capacity",
            f"expected images of at most {_shown(MOST_REPLAY_BYTES)}, got {_shown(total)}; keep fewer transitions",
        )


def groups_fit_into_memory(config: RunKeys) -> Iterator[Problem]:
    """Check that the trajectories of an iteration of grpo fit into memory."""
    yield from _check_trajectories("grpo", config.grpo.num_groups * config.grpo.group_size)


def played_groups_fit_into_memory(config: RunKeys) -> Iterator[Problem]:
    """Check that the trajectories of an iteration of dpo or cpl fit into memory."""
    source = config.pairs.source
    if source.kind != "offline":
        yield from _check_trajectories("pairs.source", source.num_groups * source.group_size)


def _check_trajectories(path: str, trajectories: int) -> Iterator[Problem]:
    if trajectories > MOST_TRAJECTORIES:
        yield Problem(
            f"{path}.num_groups",
            f"expected num_groups * group_size of at most {plain(MOST_TRAJECTORIES)} trajectories in an iteration, "
            f"got {trajectories}; take fewer",
        )


def pairs_fit_into_memory(config: RunKeys) -> Iterator[Problem]:
    """Check that the pairs of an iteration and the stored segments fit into memory."""
    source = config.pairs.source
    if source.kind == "offline":
        return
    size, starts = source.group_size, source.num_groups
    if not source.same_start:
        size, starts = size * starts, 1
    pairs = source.pairs_per_iteration or starts * size * (size - 1) // 2
    if pairs > MOST_PAIRS:
        yield Problem(
            "pairs.source.group_size",
            f"expected at most {plain(MOST_PAIRS)} pairs in an iteration, got {pairs}; "
            "set pairs.source.pairs_per_iteration",
        )
    segments = source.segments
    length = {"fixed": "length", "variable": "max_length"}.get(segments.kind)
    steps = 0 if length is None else 2 * source.buffer_size * getattr(segments, length)
    if steps > MOST_SEGMENT_STEPS:
        yield Problem(
            "pairs.source.buffer_size",
            f"expected at most {plain(MOST_SEGMENT_STEPS)} steps in all pairs that are kept, got {steps}; keep fewer",
        )


RULES: tuple[Rule, ...] = (
    networks_fit_into_memory,
    environments_have_a_process_each,
    images_fit_into_memory,
)
"""Rules of every algorithm; an algorithm declares further rules itself."""


def _weights(nn: NNConfig) -> Iterator[tuple[str, int]]:
    """Yield (path, number of weights) of each part, without layers whose size depends on the task."""
    vision, vector, heads = nn.vision, nn.vector, nn.heads
    if vision.kind == "cnn":
        areas = [side * side for side in vision.kernel_sizes[1:]]
        products = zip(areas, itertools.pairwise(vision.channels), strict=False)
        yield "nn.vision.channels", sum(area * before * after for area, (before, after) in products)
        yield "nn.vision.hidden_sizes", _dense(vision.hidden_sizes)
    if vision.kind == "impala":
        widths = [channels * vision.width for channels in vision.channels]
        yield "nn.vision.width", 9 * (_dense(widths) + 4 * sum(width * width for width in widths))
    if vision.kind == "vit":
        yield "nn.vision.d_model", _transformer(vision, vision.d_model, vision.num_layers)
    if vector.kind == "mlp":
        yield "nn.vector.hidden_sizes", _dense(vector.hidden_sizes)
    if nn.fusion.kind != "none":
        yield from _trunk(nn.fusion.trunk, nn.fusion.d_model or 1)
    if nn.memory.kind != "none":
        yield "nn.memory.hidden_size", 8 * nn.memory.hidden_size**2 * nn.memory.num_layers
    yield "nn.heads.hidden_sizes", _dense(heads.hidden_sizes)
    for name in ("advantage", "policy", "value"):
        stream = getattr(heads, name)
        if stream is not None and stream.kind == "mlp":
            yield f"nn.heads.{name}.hidden_sizes", _dense(stream.hidden_sizes)
        elif stream is not None:
            yield f"nn.heads.{name}.d_model", _transformer(stream, stream.d_model, stream.num_layers)


def _trunk(trunk: Trunk, d_model: int) -> Iterator[tuple[str, int]]:
    if trunk.kind == "native_transformer":
        yield "nn.fusion.d_model", _transformer(trunk, d_model, trunk.num_layers)
    if trunk.kind == "mlp":
        yield "nn.fusion.trunk.hidden_sizes", _dense([*trunk.hidden_sizes, d_model])
    if trunk.kind == "cnn":
        yield "nn.fusion.trunk.channels", trunk.kernel_size * _dense([d_model, *trunk.channels])


def _dense(widths: Sequence[int]) -> int:
    return sum(before * after for before, after in itertools.pairwise(widths))


def _transformer(options: TransformerOptions, width: int, num_layers: int) -> int:
    return int(num_layers * (4 + 2 * options.feedforward_ratio) * width * width)


def _image_bytes(config: RunKeys) -> Iterator[tuple[str, int]]:
    """Yield (path, bytes of a grey observation) for each key that sets the size of images."""
    environment = config.environment
    if environment.has_atari:
        atari = environment.atari
        yield "environment.atari.img_height", atari.img_height * atari.img_width * atari.stack_num
        return
    area, stack = 0, 1
    for path, wrapper in environment.placed_wrappers:
        if wrapper.kind == "resize":
            area = wrapper.height * wrapper.width
        if wrapper.kind == "frame_stack":
            stack *= wrapper.num_frames
        if area and wrapper.kind in ("resize", "frame_stack"):
            yield path, area * stack


def _shown(size: int) -> str:
    return f"{size / 2**30:,.0f} GiB"
