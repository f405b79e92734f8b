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
    """Truncate episodes."""

    kind: Literal["time_limit"] = "time_limit"
    max_episode_steps: Steps = Field(description="Number of steps after which an episode is truncated, >= 1.")


class FrameSkip(Block):
    """Repeat each action and sum the rewards."""

    kind: Literal["frame_skip"] = "frame_skip"
    num_frames: Count = Field(
        description=(
            "Number of frames that each action is repeated for, >= 1; environment steps count actions (Atari: 4)."
        )
    )
    max_last_two: bool = Field(
        default=False,
        description=(
            "Take the larger value of each pixel over the last two frames, against flicker (Mnih et al. 2015: true)."
        ),
    )


class FrameStack(Block):
    """Stack the last images along the channel axis, oldest first."""

    kind: Literal["frame_stack"] = "frame_stack"
    num_frames: Stack = Field(description="Number of images stacked in an observation, >= 1 (Atari: 4).")


class PlainWrapper(Block):
    """Apply a wrapper without options."""

    kind: Literal["flatten", "grayscale", "telemetry", "clock", "mask_from_info"] = Field(
        description=(
            "flatten: turn a Dict, Tuple or other observation into one vector; grayscale: convert images to one grey "
            "channel (luminance, ITU-R BT.601); telemetry: add CarRacing's speed, wheel speeds, steering and angular "
            "velocity as `observation` beside `pixels`; clock: add the clock of iqn.fixed_horizon as the first "
            "feature of the vector observation, 0 when acting; mask_from_info: copy the action mask "
            'info["action_mask"] into the observation as `action_mask`.'
        )
    )


class Crop(Block):
    """Crop the edges of images."""

    kind: Literal["crop"] = "crop"
    top: PixelsFromZero = Field(default=0, description="Number of rows cut off at the top, in pixels, >= 0.")
    bottom: PixelsFromZero = Field(default=0, description="Number of rows cut off at the bottom, in pixels, >= 0.")
    left: PixelsFromZero = Field(default=0, description="Number of columns cut off on the left, in pixels, >= 0.")
    right: PixelsFromZero = Field(default=0, description="Number of columns cut off on the right, in pixels, >= 0.")


class Resize(Block):
    """Scale images; a new pixel is the mean of the area that it covers."""

    kind: Literal["resize"] = "resize"
    height: Pixels = Field(description="Height of the scaled images, in pixels, >= 1 (Atari: 84).")
    width: Pixels = Field(description="Width of the scaled images, in pixels, >= 1 (Atari: 84).")


class RewardScale(Block):
    """Multiply the rewards of training by a factor; evaluation reports the task's own rewards."""

    kind: Literal["reward_scale"] = "reward_scale"
    scale: Positive = Field(description="Factor of the rewards, > 0.")


class RewardClip(Block):
    """Clip the rewards of training; evaluation reports the task's own rewards."""

    kind: Literal["reward_clip"] = "reward_clip"
    low: Real = Field(default=-1.0, description="Smallest reward, in reward units (Mnih et al. 2015: -1).")
    high: Real = Field(default=1.0, description="Largest reward, in reward units, above low (Mnih et al. 2015: 1).")


class NormalizeReward(Block):
    """Divide the rewards of training by the spread of the return; evaluation reports the task's own rewards."""

    kind: Literal["normalize_reward"] = "normalize_reward"
    discount: Fraction = Field(default=0.99, description="Discount per step in the running sum of rewards, in [0, 1].")
    clip: Positive | None = Field(
        default=10.0,
        description="Largest absolute value of a normalised reward, > 0; null: no clipping, as in Gymnasium.",
    )


class SelectKeys(Block):
    """Keep some entries of a Dict observation."""

    kind: Literal["select_keys"] = "select_keys"
    keys: tuple[Text, ...] = Field(min_length=1, description="Keys of the entries to keep.")


class RescaleAction(Block):
    """Scale continuous actions from these bounds to those of the task."""

    kind: Literal["rescale_action"] = "rescale_action"
    low: Real = Field(default=-1.0, description="Smallest action of the policy, below high.")
    high: Real = Field(default=1.0, description="Largest action of the policy, above low.")


class OwnWrapper(Block):
    """Wrap the task in your own class; `{kind: "module:Class"}` is a shorthand."""

    kind: Literal["own"] = "own"
    wrapper: ModuleAndName = Field(description='"module:Class", called as Class(environment, **kwargs).')
    kwargs: dict[str, JsonValue] = Field(default_factory=dict, description="Arguments of the class, by name.")


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
            "Gymnasium id of the task, e.g. CartPole-v1 or MinAtar/Breakout-v1; module:Id-v0 first imports the module "
            "that registers the id."
        )
    )
    imports: tuple[Module, ...] = Field(
        default=(), description="Modules that register tasks when they are imported, e.g. minigrid."
    )
    module_path: tuple[Text, ...] = Field(
        default=(),
        description=(
            "Directories searched, after Python's own, for the modules named in id, imports, wrappers and nn.body. If "
            "any module is named, the default is the directory of the file and the current directory."
        ),
    )
    num_envs: Environments = Field(default=8, description="Number of environments stepped together, >= 1.")
    vectorization: Literal["sync", "async", "vector_entry_point", "atari", "envpool"] = Field(
        default="sync",
        description=(
            "sync: step all environments in this process, fastest for cheap tasks; async: one process per "
            "environment; vector_entry_point: the task's own vectorised form; atari: ale_py's, for ids ALE/...-v5; "
            "envpool: C++ threads (Weng et al. 2022, arXiv:2206.10558), for ids ALE/...-v5 and envpool's own ids."
        ),
    )
    atari: AtariConfig = Field(
        default_factory=AtariConfig,
        description="Options of vectorization atari, and of envpool with ids ALE/...-v5; refused otherwise.",
    )
    kwargs: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="Arguments of gymnasium.make, by name; with vectorization envpool, options of the envpool task.",
    )
    wrappers: tuple[Wrapper, ...] = Field(default=(), description="Wrappers of each environment, the innermost first.")
    channels: Literal["auto", "first", "last"] = Field(
        default="auto",
        description=(
            "Position of the channel axis in image observations; auto chooses the shorter of the first and the last "
            "axis."
        ),
    )
    worker_timeout: Seconds = Field(
        default=60.0,
        description=(
            "Seconds to wait for one step of an async worker, or of a collector's worker, before the run fails, > 0."
        ),
    )
    start_timeout: Seconds = Field(
        default=300.0,
        description=(
            "Seconds to wait for an async worker, or a collector's worker, to start and make its environments before "
            "the run fails, > 0."
        ),
    )

    @property
    def has_atari(self) -> bool:
        """Return whether the games are those of ALE with the options of ``atari``."""
        return self.vectorization == "atari" or (self.vectorization == "envpool" and self.id.startswith(ALE))

    @property
    def frames_per_step(self) -> int:
        """Return the number of frames per action; more than 1 with frame skip."""
        return self.atari.frameskip if self.has_atari else self._frames_of("frame_skip")

    @property
    def reward_factor(self) -> float:
        """Return the factor of the rewards in training, before clipping."""
        return math.prod(wrapper.scale for wrapper in self.wrappers if wrapper.kind == "reward_scale")

    @property
    def stacked_frames(self) -> int:
        """Return the number of images stacked in an observation; 1 without stacking."""
        return self.atari.stack_num if self.has_atari else self._frames_of("frame_stack")

    def _frames_of(self, kind: Literal["frame_skip", "frame_stack"]) -> int:
        return math.prod(wrapper.num_frames for wrapper in self.wrappers if wrapper.kind == kind)

    @property
    def placed_wrappers(self) -> tuple[tuple[str, Wrapper], ...]:
        """Return the wrappers with their dotted paths in a file."""
        return tuple((f"environment.wrappers.{index}", each) for index, each in enumerate(self.wrappers))

    @property
    def modules(self) -> tuple[str, ...]:
        """Return the modules that are imported to make the task: those of ``id``, ``imports`` and ``wrappers``."""
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
