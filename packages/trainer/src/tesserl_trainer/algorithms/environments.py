"""Make the environments of an ``environment:`` block."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import CloudpickleWrapper
from gymnasium.wrappers import FilterObservation, FlattenObservation, RescaleAction, TimeLimit

import tesserl_environments as made
from tesserl_configs import ConfigError, RunConfig
from tesserl_configs import environment as blocks
from tesserl_configs.atari import AtariConfig
from tesserl_configs.environment import EnvironmentConfig, Wrapper
from tesserl_configs.environment_rules import NOT_IN_ENVPOOL
from tesserl_environments import EnvironmentArgumentError
from tesserl_environments.making import Environments, Space, StartKind, Vectorization, Wrap
from tesserl_environments.registration import TaskMaker

WHOLE_GAMES = {"episodic_life": False, "life_loss_info": False, "reward_clipping": False}
"""Options of Atari games in evaluation, which reports the game's unclipped rewards."""

NAMES = {"frameskip": "frame_skip", "grayscale": "gray_scale", "reward_clipping": "reward_clip"}
"""Options of ``environment.atari`` -> their names in envpool, where they differ."""


PLAIN: dict[str, Wrap] = {
    "clock": made.Clock,
    "flatten": FlattenObservation,
    "mask_from_info": made.MaskFromInfo,
    "telemetry": made.Telemetry,
}
"""Wrappers without arguments."""

OF_REWARDS = ("normalize_reward", "reward_clip", "reward_scale")
"""Wrappers that evaluation leaves out."""


def make_environments(
    block: EnvironmentConfig,
    num_envs: int,
    *,
    evaluation: bool = False,
    groups: bool = False,
    starts: StartKind = "seed",
    max_length: int | None = None,
) -> Environments:
    """Make the vector environment of an ``environment:`` block.

    Args:
        block: the block.
        num_envs: number of sub-environments.
        evaluation: leave out wrappers that change rewards or shorten games; reset only on request; replace the
            task's own vectorised form by single environments in this process.
        groups: reset only on request, to a given start.
        starts: what a reset may begin from, see `tesserl_environments.make_environments`.
        max_length: truncate episodes after this many steps; None: keep the limit of the task.

    Returns:
        Environments like those of `tesserl_environments.make_environments`.

    Raises:
        ConfigError: the id is unknown, its package is missing, or it does not take the given arguments.
        WorkerError: a worker died, or did not make its environment in time.
    """
    with naming_block():
        import_modules(block)
        return made.make_environments(
            block.id,
            num_envs,
            vectorization=_vectorization(block, evaluation),
            kwargs=_arguments(block, evaluation=evaluation, groups=groups),
            wrappers=_wrappers(block, evaluation),
            resets_itself=not (evaluation or groups),
            starts=starts,
            max_length=max_length,
            worker_timeout=block.worker_timeout,
            start_timeout=block.start_timeout,
        )


def make_at_once(block: EnvironmentConfig, num_envs: int) -> Environments | None:
    """Make vectorised environments for an evaluation; None if the task has no vectorised form."""
    if block.vectorization not in ("sync", "vector_entry_point") or block.kwargs:
        return None
    with naming_block():
        import_modules(block)  # a module may define a wrapper
        return None if _wrappers(block, evaluation=True) else made.make_at_once(block.id, num_envs)


def task_spaces(block: EnvironmentConfig) -> tuple[Space, Space]:
    """Return the observation and the action space of one environment of an ``environment:`` block."""
    with naming_block():
        import_modules(block)
        return made.task_spaces(
            block.id,
            vectorization=_vectorization(block, evaluation=True),
            kwargs=_arguments(block, evaluation=True),
            wrappers=_wrappers(block, evaluation=True),
            start_timeout=block.start_timeout,
        )


def has_time_limit(block: EnvironmentConfig) -> bool:
    """Return whether the registration of a task limits the length of its episodes."""
    if block.vectorization in ("atari", "envpool") or any(each.kind == "time_limit" for each in block.wrappers):
        return True
    with naming_block():
        import_modules(block)
        return made.has_time_limit(block.id, block.kwargs)


def import_modules(block: EnvironmentConfig) -> None:
    """Import the modules that register the task of an ``environment:`` block."""
    made.extend_module_path(block.module_path)
    for name in block.imports:
        made.import_named(name, "imports")
    if block.vectorization != "envpool":
        made.register(block.id)


def with_maker(config: RunConfig, maker: TaskMaker) -> RunConfig:
    """Return the configuration whose environments ``maker`` makes; it is registered until this process ends."""
    block = config.environment
    if block.vectorization not in ("sync", "async"):
        raise ConfigError(
            f"environment.vectorization: a function makes single environments, got {block.vectorization}; "
            "choose sync or async"
        )
    if block.vectorization == "async" or config.collectors.kind != "local" or config.evaluation.process:
        try:
            CloudpickleWrapper(maker).__getstate__()
        except Exception as error:  # pickling raises a different error for each kind of object
            raise ConfigError(
                "environment: the function that makes environments must be picklable, as worker processes call it, got "
                f"{type(error).__name__}: {error}; define it at the top level of a module, or set "
                "environment.vectorization to sync, collectors to {kind: local} and evaluation.process to false"
            ) from error
    block = block.model_copy(update={"id": made.register_maker(block.id, maker)})
    return config.model_copy(update={"environment": block})


@contextmanager
def naming_block() -> Iterator[None]:
    """Turn a wrong argument of an environment into an error of the ``environment:`` block."""
    try:
        yield
    except EnvironmentArgumentError as error:
        raise ConfigError(f"environment.{error}") from error


def _vectorization(block: EnvironmentConfig, evaluation: bool) -> Vectorization:
    return "sync" if evaluation and block.vectorization == "vector_entry_point" else block.vectorization


def _arguments(block: EnvironmentConfig, *, evaluation: bool = False, groups: bool = False) -> dict[str, object]:
    """Return the arguments of ``gymnasium.make``, of ale_py or of envpool."""
    if not block.has_atari:
        return dict(block.kwargs)
    if block.vectorization == "atari":
        return block.atari.model_dump() | (WHOLE_GAMES if evaluation else {})
    return atari_options(block.atari.model_copy(update=WHOLE_GAMES) if evaluation or groups else block.atari)


def atari_options(block: AtariConfig) -> dict[str, object]:
    """Return the options of ``environment.atari:`` under envpool's names; envpool counts steps, ale_py frames."""
    options = block.model_dump(exclude={*NOT_IN_ENVPOOL, "max_num_frames_per_episode"})
    steps = max(block.max_num_frames_per_episode // block.frameskip, 1)
    return {NAMES.get(key, key): value for key, value in options.items()} | {"max_episode_steps": steps}


def _wrappers(block: EnvironmentConfig, evaluation: bool) -> list[Wrap]:
    """Return the functions that wrap an environment, for an evaluation without those that change rewards."""
    kept = (each for each in block.wrappers if not (evaluation and each.kind in OF_REWARDS))
    return [wrap_of(each, block.channels) for each in kept]


def wrap_of(block: Wrapper, channels: str = "auto") -> Wrap:
    """Return the function that applies an entry of ``environment.wrappers`` to an environment."""
    match block:
        case blocks.TimeLimit():
            return partial(TimeLimit, max_episode_steps=block.max_episode_steps)
        case blocks.FrameSkip():
            return partial(
                made.FrameSkip, num_frames=block.num_frames, max_last_two=block.max_last_two, channels=channels
            )
        case blocks.FrameStack():
            return partial(made.stack_frames, num_frames=block.num_frames, channels=channels)
        case blocks.PlainWrapper(kind="grayscale"):
            return partial(made.to_grayscale, channels=channels)
        case blocks.PlainWrapper():
            return PLAIN[block.kind]
        case blocks.Crop():
            rows = partial(made.crop_edges, top=block.top, bottom=block.bottom)
            return partial(rows, left=block.left, right=block.right, channels=channels)
        case blocks.Resize():
            return partial(made.resize, height=block.height, width=block.width, channels=channels)
        case blocks.RewardScale():
            return partial(made.scale_rewards, scale=block.scale)
        case blocks.RewardClip():
            return partial(made.clip_rewards, low=block.low, high=block.high)
        case blocks.NormalizeReward():
            return partial(made.NormalizeReward, discount=block.discount, clip=block.clip)
        case blocks.SelectKeys():
            return partial(FilterObservation, filter_keys=block.keys)
        case blocks.RescaleAction():
            return partial(RescaleAction, min_action=np.float32(block.low), max_action=np.float32(block.high))
        case blocks.OwnWrapper():
            return partial(made.load_named(block.wrapper, "wrappers"), **block.kwargs)


def discrete_actions(space: Space) -> tuple[int, int | None]:
    """Return the number of choices of a discrete action, and the number of its blocks.

    Args:
        space: action space.

    Returns:
        ``(A, None)`` for Discrete(A); ``(A, N)`` for MultiDiscrete with N equal entries A.

    Raises:
        ConfigError: the space is of another kind.
    """
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return int(space.n), None
    if isinstance(space, spaces.MultiDiscrete) and len(space.shape) == 1 and len(set(space.nvec.tolist())) == 1:
        return int(space.nvec[0]), len(space.nvec)
    raise ConfigError(
        f"environment.id: iqn needs a Discrete action space that starts at 0, or a MultiDiscrete one of equal "
        f"entries, got {space}; use another task or discretise it in a wrapper"
    )
