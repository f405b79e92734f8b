"""``environment:``, the task and how many copies of it run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from tesserl_configs.base import Block, Count, Positive, Real


class TimeLimit(Block):
    """Truncates episodes."""

    kind: Literal["time_limit"] = "time_limit"
    max_episode_steps: Count = Field(description="Steps after which an episode is truncated, >= 1.")


class FrameSkip(Block):
    """Repeats each action and sums the rewards."""

    kind: Literal["frame_skip"] = "frame_skip"
    num_frames: Count = Field(description="Frames per action, >= 1 (Atari: 4). Environment steps count actions.")


class FrameStack(Block):
    """Stacks the last images along the channel axis, oldest first."""

    kind: Literal["frame_stack"] = "frame_stack"
    num_frames: Count = Field(description="Images per observation, >= 1 (Atari: 4).")


class RewardScale(Block):
    """Multiplies the rewards that training sees; evaluation reports the task's own."""

    kind: Literal["reward_scale"] = "reward_scale"
    scale: Positive = Field(description="Factor, > 0.")


class RewardClip(Block):
    """Clips the rewards that training sees; evaluation reports the task's own."""

    kind: Literal["reward_clip"] = "reward_clip"
    low: Real = Field(default=-1.0, description="Smallest reward, in reward units (Mnih et al. 2015: -1).")
    high: Real = Field(default=1.0, description="Largest reward, in reward units, above low (Mnih et al. 2015: 1).")


Wrapper = Annotated[TimeLimit | FrameSkip | FrameStack | RewardScale | RewardClip, Field(discriminator="kind")]


class EnvironmentConfig(Block):
    """The task and how many copies of it run."""

    id: str = Field(min_length=1, description="Gymnasium id, e.g. CartPole-v1 or MinAtar/Breakout-v1.")
    num_envs: Count = Field(default=8, description="Environments that are stepped together, >= 1.")
    vectorization: Literal["sync", "async", "vector_entry_point"] = Field(
        default="sync",
        description=(
            "sync: all in this process, fastest for cheap tasks; async: one process each; "
            "vector_entry_point: the task's own vectorised form."
        ),
    )
    kwargs: dict[str, JsonValue] = Field(default_factory=dict, description="Arguments of gymnasium.make.")
    wrappers: tuple[Wrapper, ...] = Field(default=(), description="Wrappers, the innermost first.")
    channels: Literal["auto", "first", "last"] = Field(
        default="auto", description="Channel axis of image observations; auto: the shorter of the two outer axes."
    )
    worker_timeout: Positive = Field(
        default=60.0, description="Seconds to wait for one step of an async worker before the run fails, > 0."
    )
