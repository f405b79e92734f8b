"""``environment:``, the task and how many copies of it run."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from tesserl_configs.atari import AtariConfig
from tesserl_configs.base import (
    Block,
    Count,
    Environments,
    Fraction,
    Module,
    ModuleAndName,
    Pixels,
    PixelsFromZero,
    Positive,
    Real,
    Seconds,
    Stack,
    Steps,
    Text,
)

ALE = "ALE/"
"""Prefix of the ids of the Arcade Learning Environment."""


class TimeLimit(Block):
    """Truncates episodes."""

    kind: Literal["time_limit"] = "time_limit"
    max_episode_steps: Steps = Field(description="Steps after which an episode is truncated, >= 1.")


class FrameSkip(Block):
    """Repeats each action and sums the rewards."""

    kind: Literal["frame_skip"] = "frame_skip"
    num_frames: Count = Field(description="Frames per action, >= 1 (Atari: 4). Environment steps count actions.")
    max_last_two: bool = Field(
        default=False,
        description="Pixels are the larger ones of the last two frames, for screens that flicker (Mnih et al. 2015).",
    )


class FrameStack(Block):
    """Stacks the last images along the channel axis, oldest first."""

    kind: Literal["frame_stack"] = "frame_stack"
    num_frames: Stack = Field(description="Images per observation, >= 1 (Atari: 4).")


class PlainWrapper(Block):
    """Wrappers without options."""

    kind: Literal["flatten", "grayscale", "telemetry", "clock", "mask_from_info"] = Field(
        description=(
            "flatten: a Dict, Tuple or other observation as one vector; grayscale: grey images of one channel "
            "(luminance, ITU-R BT.601); telemetry: CarRacing's speed, wheel "
            "speeds, steering and angular velocity as `observation` beside `pixels`; clock: a first feature of the "
            "vector observation for iqn.fixed_horizon, 0 where actions are chosen; mask_from_info: the action mask "
            'info["action_mask"] as the entry `action_mask` of the observation.'
        )
    )


class Crop(Block):
    """Cuts off what lies at the edges of images."""

    kind: Literal["crop"] = "crop"
    top: PixelsFromZero = Field(default=0, description="Rows cut off above, in pixels, >= 0.")
    bottom: PixelsFromZero = Field(default=0, description="Rows cut off below, in pixels, >= 0.")
    left: PixelsFromZero = Field(default=0, description="Columns cut off on the left, in pixels, >= 0.")
    right: PixelsFromZero = Field(default=0, description="Columns cut off on the right, in pixels, >= 0.")


class Resize(Block):
    """Scales images; a pixel is the mean of the area that it covers."""

    kind: Literal["resize"] = "resize"
    height: Pixels = Field(description="Height afterwards, in pixels, >= 1 (Atari: 84).")
    width: Pixels = Field(description="Width afterwards, in pixels, >= 1 (Atari: 84).")


class RewardScale(Block):
    """Multiplies the rewards that training sees; evaluation reports the task's own."""

    kind: Literal["reward_scale"] = "reward_scale"
    scale: Positive = Field(description="Factor, > 0.")


class RewardClip(Block):
    """Clips the rewards that training sees; evaluation reports the task's own."""

    kind: Literal["reward_clip"] = "reward_clip"
    low: Real = Field(default=-1.0, description="Smallest reward, in reward units (Mnih et al. 2015: -1).")
    high: Real = Field(default=1.0, description="Largest reward, in reward units, above low (Mnih et al. 2015: 1).")


class NormalizeReward(Block):
    """Divides the rewards that training sees by the spread of the return; evaluation reports the task's own."""

    kind: Literal["normalize_reward"] = "normalize_reward"
    discount: Fraction = Field(default=0.99, description="Discount of the running sum of rewards, in [0, 1].")
    clip: Positive | None = Field(
        default=10.0, description="Largest absolute normalised reward, > 0; null leaves them (Gymnasium has none)."
    )


class SelectKeys(Block):
    """Keeps some entries of a Dict observation."""

    kind: Literal["select_keys"] = "select_keys"
    keys: tuple[Text, ...] = Field(min_length=1, description="Keys that stay.")


class RescaleAction(Block):
    """Scales continuous actions from these bounds to those of the task."""

    kind: Literal["rescale_action"] = "rescale_action"
    low: Real = Field(default=-1.0, description="Smallest action of the policy.")
    high: Real = Field(default=1.0, description="Largest action of the policy, above low.")


class OwnWrapper(Block):
    """Wraps the task in a class of yours; `{kind: "module:Class"}` is short for it."""

    kind: Literal["own"] = "own"
    wrapper: ModuleAndName = Field(description='"module:Class", called as Class(environment, **kwargs).')
    kwargs: dict[str, JsonValue] = Field(default_factory=dict, description="Its arguments by name.")


Wrapper = Annotated[
    TimeLimit
    | FrameSkip
    | FrameStack
    | PlainWrapper
    | Crop
    | Resize
    | RewardScale
    | RewardClip
    | NormalizeReward
    | SelectKeys
    | RescaleAction
    | OwnWrapper,
    Field(discriminator="kind"),
]


class EnvironmentConfig(Block):
    """The task and how many copies of it run."""

    id: Text = Field(
        description=(
            "Gymnasium id, e.g. CartPole-v1 or MinAtar/Breakout-v1; module:Id-v0 imports the module that registers it."
        )
    )
    imports: tuple[Module, ...] = Field(
        default=(), description="Modules that register tasks when they are imported, e.g. minigrid."
    )
    module_path: tuple[Text, ...] = Field(
        default=(),
        description=(
            "Directories of the modules that id, imports, wrappers and nn.body name, looked at after Python's own; "
            "where any is named, the default is the directory of the file and the current one."
        ),
    )
    num_envs: Environments = Field(default=8, description="Environments that are stepped together, >= 1.")
    vectorization: Literal["sync", "async", "vector_entry_point", "atari", "envpool"] = Field(
        default="sync",
        description=(
            "sync: all in this process, fastest for cheap tasks; async: one process each; "
            "vector_entry_point: the task's own vectorised form; atari: ale_py's, for ids ALE/...-v5; "
            "envpool: threads in C++ (Weng et al. 2022, arXiv:2206.10558), for ids ALE/...-v5 and its own."
        ),
    )
    atari: AtariConfig = Field(
        default_factory=AtariConfig,
        description="Options of vectorization atari, and of envpool for ids ALE/...-v5; for no other.",
    )
    kwargs: dict[str, JsonValue] = Field(
        default_factory=dict, description="Arguments of gymnasium.make; with vectorization envpool those of its task."
    )
    wrappers: tuple[Wrapper, ...] = Field(default=(), description="Wrappers, the innermost first.")
    channels: Literal["auto", "first", "last"] = Field(
        default="auto", description="Channel axis of image observations; auto: the shorter of the two outer axes."
    )
    worker_timeout: Seconds = Field(
        default=60.0,
        description="Seconds to wait for one step of an async worker, or of a collector's, before the run fails, > 0.",
    )
    start_timeout: Seconds = Field(
        default=300.0,
        description=(
            "Seconds to wait for an async worker, or a collector's, to start and make its environments before the run "
            "fails, > 0."
        ),
    )

    @property
    def has_atari(self) -> bool:
        """Return whether the games are those of ALE with the options of ``atari``."""
        return self.vectorization == "atari" or (self.vectorization == "envpool" and self.id.startswith(ALE))

    @property
    def frames_per_step(self) -> int:
        """Return the frames of the task for each action; more than 1 with frame skip."""
        return self.atari.frameskip if self.has_atari else self._frames_of("frame_skip")

    @property
    def reward_factor(self) -> float:
        """Return the factor of the task's rewards in training, without clipping."""
        return math.prod(wrapper.scale for wrapper in self.wrappers if wrapper.kind == "reward_scale")

    @property
    def stacked_frames(self) -> int:
        """Return the number of images that an observation stacks; 1 by default."""
        return self.atari.stack_num if self.has_atari else self._frames_of("frame_stack")

    def _frames_of(self, kind: Literal["frame_skip", "frame_stack"]) -> int:
        return math.prod(wrapper.num_frames for wrapper in self.wrappers if wrapper.kind == kind)

    @property
    def placed_wrappers(self) -> tuple[tuple[str, Wrapper], ...]:
        """Return the wrappers with their dotted paths in a file."""
        return tuple((f"environment.wrappers.{index}", each) for index, each in enumerate(self.wrappers))

    @property
    def modules(self) -> tuple[str, ...]:
        """Modules that making the task imports: those of ``id``, ``imports`` and ``wrappers``."""
        own = [wrapper.wrapper for wrapper in self.wrappers if isinstance(wrapper, OwnWrapper)]
        named = [text.rpartition(":")[0] for text in (self.id, *own) if ":" in text]
        return (*named, *self.imports)

    @field_validator("wrappers", mode="before")
    @classmethod
    def _own_wrappers(cls, wrappers: Any) -> Any:
        """Read ``{kind: "module:Class", ...}`` as a wrapper of kind own."""
        if not isinstance(wrappers, list | tuple):
            return wrappers
        return tuple(
            {**entry, "kind": "own", "wrapper": entry["kind"]}
            if isinstance(entry, dict) and isinstance(entry.get("kind"), str) and ":" in entry["kind"]
            else entry
            for entry in wrappers
        )

    @field_validator("atari", mode="before")
    @classmethod
    def _belongs_to_atari(cls, block: Any, info: ValidationInfo) -> Any:
        vectorization, environment_id = info.data.get("vectorization", "atari"), info.data.get("id", ALE)
        if vectorization not in ("atari", "envpool"):
            raise ValueError(f"belongs to vectorization atari or envpool, got {vectorization}; remove the block")
        if vectorization == "envpool" and not environment_id.startswith(ALE):
            raise ValueError(f"is for games of ALE, got {environment_id}; write its options in environment.kwargs")
        return block

    @model_serializer(mode="wrap")
    def _without_what_is_not_used(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unused = () if self.has_atari else ("atari",)
        return {key: value for key, value in serialize(self).items() if key not in unused}
