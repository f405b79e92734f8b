"""Make Gymnasium tasks ready for training: vectorisation, wrappers, checks, and states that can be saved."""

from tesserl_environments.__about__ import __version__
from tesserl_environments.atari import AtariEnvironments
from tesserl_environments.boundary import Boundary
from tesserl_environments.checked import Checked
from tesserl_environments.envpool import EnvpoolEnvironments
from tesserl_environments.errors import EnvironmentArgumentError, TaskError, WorkerError
from tesserl_environments.making import make_at_once, make_environments, task_spaces
from tesserl_environments.masks import ActionMask, MaskFromInfo
from tesserl_environments.modules import extend_module_path, import_named, load_named
from tesserl_environments.observations import ObservationLayout
from tesserl_environments.plain_spaces import PlainSpaces, own_action, plain_action_space
from tesserl_environments.registration import has_time_limit, register, register_maker, task_spec
from tesserl_environments.reward_normalization import NormalizeReward
from tesserl_environments.seeds import derived_seed, worker_seeds
from tesserl_environments.snapshots import Carrying, Resumable, restore, snapshot
from tesserl_environments.starts import GroupStarts, LevelStart, RestoredStarts, SeedStart, Start, StateStart
from tesserl_environments.telemetry import Telemetry
from tesserl_environments.visited_starts import ReplayedStarts, VisitedStart
from tesserl_environments.workers import WorkerEnvironments, autoreset_mode, close, closed_afterwards, step
from tesserl_environments.wrappers import (
    Clock,
    FrameSkip,
    clip_rewards,
    crop_edges,
    resize,
    scale_rewards,
    stack_frames,
    to_grayscale,
)

__all__ = [
    "ActionMask",
    "AtariEnvironments",
    "Boundary",
    "Carrying",
    "Checked",
    "Clock",
    "EnvironmentArgumentError",
    "EnvpoolEnvironments",
    "FrameSkip",
    "GroupStarts",
    "LevelStart",
    "MaskFromInfo",
    "NormalizeReward",
    "ObservationLayout",
    "PlainSpaces",
    "ReplayedStarts",
    "RestoredStarts",
    "Resumable",
    "SeedStart",
    "Start",
    "StateStart",
    "TaskError",
    "Telemetry",
    "VisitedStart",
    "WorkerEnvironments",
    "WorkerError",
    "__version__",
    "autoreset_mode",
    "clip_rewards",
    "close",
    "closed_afterwards",
    "crop_edges",
    "derived_seed",
    "extend_module_path",
    "has_time_limit",
    "import_named",
    "load_named",
    "make_at_once",
    "make_environments",
    "own_action",
    "plain_action_space",
    "register",
    "register_maker",
    "resize",
    "restore",
    "scale_rewards",
    "snapshot",
    "stack_frames",
    "step",
    "task_spaces",
    "task_spec",
    "to_grayscale",
    "worker_seeds",
]
