"""Rules about ``environment:``, one function each."""

from __future__ import annotations

from collections.abc import Iterator

from tesserl_configs.environment import ALE
from tesserl_configs.errors import Problem
from tesserl_configs.iqn import IQNConfig
from tesserl_configs.run_keys import Rule, RunKeys

OF_IMAGES = {
    "frame_stack": "stacks images",
    "grayscale": "changes images",
    "crop": "changes images",
    "resize": "changes images",
}
"""Descriptions of the wrappers that need an image."""

NOT_IN_ENVPOOL = {"maxpool": True, "life_loss_info": False, "continuous": False, "continuous_action_threshold": 0.5}
"""Options of ale_py that envpool does not have -> the value that it implements."""

SET_BY_THE_TRAINER = {"num_envs", "batch_size", "env_type", "seed", "env_seed", "gym_reset_return_info"}
"""Arguments of ``envpool.make`` that the trainer sets, not the task."""


def images_are_seen(config: RunKeys) -> Iterator[Problem]:
    """Check that there is an image encoder if a wrapper needs images."""
    if config.nn.may_see_images:
        return
    for path, wrapper in config.environment.placed_wrappers:
        if wrapper.kind in OF_IMAGES:
            yield Problem(
                path,
                f"{wrapper.kind} {OF_IMAGES[wrapper.kind]} and nn.vision has kind none; "
                "choose an encoder there or remove the wrapper",
            )
        if wrapper.kind == "frame_skip" and wrapper.max_last_two:
            yield Problem(
                f"{path}.max_last_two",
                "is for images and nn.vision has kind none; choose an encoder there or set it to false",
            )


def vectors_of_wrappers_are_seen(config: RunKeys) -> Iterator[Problem]:
    """Check that there is a vector encoder if a wrapper adds a vector observation."""
    for path, wrapper in config.environment.placed_wrappers:
        if wrapper.kind in ("telemetry", "clock") and not config.nn.may_see_vectors:
            yield Problem(
                path,
                f"{wrapper.kind} adds a vector and nn.vector has kind none; choose mlp there or remove the wrapper",
            )


def clocks_are_set(config: RunKeys) -> Iterator[Problem]:
    """Check that there is at most one clock, and none without ``iqn.fixed_horizon``."""
    clocks = [path for path, wrapper in config.environment.placed_wrappers if wrapper.kind == "clock"]
    used = isinstance(config.options, IQNConfig) and config.options.fixed_horizon is not None
    for path in clocks if not used else clocks[1:]:
        reason = "there is one already" if used else "is for iqn.fixed_horizon, which is not set"
        yield Problem(path, f"clock: {reason}; remove the wrapper")


def colours_are_there(config: RunKeys) -> Iterator[Problem]:
    """Check that grayscale comes before frame stacking and only once."""
    before = ""
    for path, wrapper in config.environment.placed_wrappers:
        if wrapper.kind == "grayscale" and before:
            yield Problem(
                path,
                f"grayscale needs a colour image, after {before} there is none; "
                + ("remove it" if before == "grayscale" else f"write it before {before}, the innermost wrapper first"),
            )
        if wrapper.kind in ("grayscale", "frame_stack"):
            before = wrapper.kind


def bounds_enclose_a_range(config: RunKeys) -> Iterator[Problem]:
    """Check that low is below high in wrappers that have bounds."""
    for path, wrapper in config.environment.placed_wrappers:
        if wrapper.kind in ("reward_clip", "rescale_action") and wrapper.low >= wrapper.high:
            yield Problem(f"{path}.low", f"expected less than high = {wrapper.high:g}, got {wrapper.low:g}")


def rewards_have_one_unit(config: RunKeys) -> Iterator[Problem]:
    """Refuse normalize_reward for algorithms that compare trajectories of several environments."""
    for path, wrapper in config.environment.placed_wrappers:
        if wrapper.kind == "normalize_reward":
            yield Problem(
                path,
                f"normalize_reward has statistics of its own in each environment, and {config.algorithm} compares "
                "trajectories of several; use reward_scale",
            )


def wrappers_wrap_single_environments(config: RunKeys) -> Iterator[Problem]:
    """Check that a natively vectorised task has no wrappers."""
    vectorization = config.environment.vectorization
    if vectorization in ("vector_entry_point", "atari", "envpool") and config.environment.wrappers:
        remedy = "use environment.atari" if config.environment.has_atari else "remove them"
        yield Problem(
            "environment.wrappers",
            f"wrap single environments, vectorization {vectorization} has none; {remedy} or choose vectorization sync",
        )


def atari_is_configured_in_its_block(config: RunKeys) -> Iterator[Problem]:
    """Check that vectorised games of ALE have an image encoder only, and their options in ``atari``."""
    environment = config.environment
    if not environment.has_atari:
        return
    vectorization = f"vectorization {environment.vectorization}"
    if not environment.id.startswith(ALE):
        yield Problem(
            "environment.id",
            f'{vectorization} plays games of ALE, such as ALE/Pong-v5, got "{environment.id}"; '
            "choose vectorization sync",
        )
    if not config.nn.may_see_images or config.nn.vector.kind != "none":
        yield Problem(
            "nn",
            f"{vectorization} shows a screen and nothing else; choose an encoder for nn.vision and none for nn.vector",
        )
    if environment.kwargs:
        yield Problem("environment.kwargs", f"{vectorization} has its options in environment.atari; remove them")


def envpool_has_the_options(config: RunKeys) -> Iterator[Problem]:
    """Reject options that envpool does not support or that the trainer sets itself."""
    environment = config.environment
    if environment.vectorization != "envpool":
        return
    for key in sorted(environment.kwargs.keys() & SET_BY_THE_TRAINER):
        yield Problem(f"environment.kwargs.{key}", "is set by the trainer; remove it")
    if environment.has_atari:
        for key, only in NOT_IN_ENVPOOL.items():
            got = getattr(environment.atari, key)
            if got != only:
                expected, found = (str(value).lower() for value in (only, got))
                yield Problem(
                    f"environment.atari.{key}",
                    f"vectorization envpool has no such option, expected {expected}, got {found}; "
                    "choose vectorization atari",
                )
        if environment.atari.noop_max == 0:
            yield Problem(
                "environment.atari.noop_max",
                "vectorization envpool needs a value >= 1, got 0; choose vectorization atari",
            )


def films_can_be_made(config: RunKeys) -> Iterator[Problem]:
    """Check that videos coincide with evaluations, and that single environments can be rendered."""
    video, every = config.evaluation.video, config.evaluation.interval
    if video is None:
        return
    if video.interval % every:
        below = video.interval // every * every
        near = f"{below} or {below + every}" if below else str(every)
        yield Problem(
            "evaluation.video.interval",
            f"expected a multiple of evaluation.interval = {every}, got {video.interval}; set {near}",
        )
    if config.environment.vectorization in ("atari", "envpool"):
        yield Problem(
            "evaluation.video",
            f"vectorization {config.environment.vectorization} draws no pictures; choose sync, or remove it",
        )


def check_starts(config: RunKeys, path: str, kind: str) -> Iterator[Problem]:
    """Check that the environments support the kind of the ``starts`` block at a path."""
    vectorization = config.environment.vectorization
    if vectorization in ("vector_entry_point", "envpool"):
        yield Problem(
            "environment.vectorization",
            f"{path} gives each environment its start, those of {vectorization} are reset together; choose sync",
        )
    elif vectorization == "atari" and kind != "seed":
        yield Problem(
            f"{path}.kind", f"vectorization atari starts games by seeds alone, got {kind}; choose seed, or sync there"
        )


RULES: tuple[Rule, ...] = (
    images_are_seen,
    vectors_of_wrappers_are_seen,
    clocks_are_set,
    colours_are_there,
    bounds_enclose_a_range,
    wrappers_wrap_single_environments,
    atari_is_configured_in_its_block,
    envpool_has_the_options,
    films_can_be_made,
)
