"""Training loops and their parts: gradient steps, replay, metrics, evaluations, checkpoints for exact resumes.

The public names are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tesserl_training.__about__ import __version__

if TYPE_CHECKING:
    from tesserl_training.advantages import Advantages
    from tesserl_training.checkpoints.checkpoint import Checkpoint, load_checkpoint, load_networks
    from tesserl_training.checkpoints.run_checkpoints import Checkpoints
    from tesserl_training.cloning import Cloning
    from tesserl_training.cuda_graph import GraphedLearner
    from tesserl_training.evaluations import EarlyStopping, Evaluations, PlayerHere
    from tesserl_training.event_file import EventFile
    from tesserl_training.journal import DivergenceError, Intervals, Journal
    from tesserl_training.learner import Learner
    from tesserl_training.logging import Averages, MetricsLog
    from tesserl_training.loops.cloning import CloningLoop
    from tesserl_training.loops.groups import GroupLoop
    from tesserl_training.loops.off_policy import OffPolicyLoop
    from tesserl_training.loops.on_policy import OnPolicyLoop
    from tesserl_training.loops.preferences import PreferenceLoop
    from tesserl_training.progress import ProgressDisplay
    from tesserl_training.replay import Replay
    from tesserl_training.replay_segments import Segments
    from tesserl_training.reward_scaling import RewardScaler
    from tesserl_training.schedule import Scheduled

__all__ = [
    "Advantages",
    "Averages",
    "Checkpoint",
    "Checkpoints",
    "Cloning",
    "CloningLoop",
    "DivergenceError",
    "EarlyStopping",
    "Evaluations",
    "EventFile",
    "GraphedLearner",
    "GroupLoop",
    "Intervals",
    "Journal",
    "Learner",
    "MetricsLog",
    "OffPolicyLoop",
    "OnPolicyLoop",
    "PlayerHere",
    "PreferenceLoop",
    "ProgressDisplay",
    "Replay",
    "RewardScaler",
    "Scheduled",
    "Segments",
    "__version__",
    "load_checkpoint",
    "load_networks",
]

_HOMES = {
    "Advantages": "advantages",
    "Averages": "logging",
    "Checkpoint": "checkpoints.checkpoint",
    "Checkpoints": "checkpoints.run_checkpoints",
    "Cloning": "cloning",
    "CloningLoop": "loops.cloning",
    "DivergenceError": "journal",
    "EarlyStopping": "evaluations",
    "Evaluations": "evaluations",
    "EventFile": "event_file",
    "GraphedLearner": "cuda_graph",
    "GroupLoop": "loops.groups",
    "Intervals": "journal",
    "Journal": "journal",
    "Learner": "learner",
    "MetricsLog": "logging",
    "OffPolicyLoop": "loops.off_policy",
    "OnPolicyLoop": "loops.on_policy",
    "PlayerHere": "evaluations",
    "PreferenceLoop": "loops.preferences",
    "ProgressDisplay": "progress",
    "Replay": "replay",
    "RewardScaler": "reward_scaling",
    "Scheduled": "schedule",
    "Segments": "replay_segments",
    "load_checkpoint": "checkpoints.checkpoint",
    "load_networks": "checkpoints.checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
