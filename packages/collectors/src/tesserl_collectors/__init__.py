"""Collectors of transitions, episodes and groups, in this process, in worker processes or on Ray clusters.

Public names are imported on first use, so that a cluster can be started before torch is imported.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tesserl_collectors.__about__ import __version__

if TYPE_CHECKING:
    from tesserl_collectors.collector import Collector, Episode
    from tesserl_collectors.episodes import Behavior, UniformActions, play_episodes
    from tesserl_collectors.evaluation import Evaluation, evaluate_policy
    from tesserl_collectors.evaluation_process import EvaluationProcess
    from tesserl_collectors.free_collector import FreeCollector, WorkerWindows
    from tesserl_collectors.groups import GroupCollector
    from tesserl_collectors.interfaces import Collecting, GroupCollecting
    from tesserl_collectors.process import prepare_process
    from tesserl_collectors.process_collector import ProcessCollector, ProcessGroupCollector
    from tesserl_collectors.processes import ProcessTransport, closed_afterwards
    from tesserl_collectors.rollout_policy import RolloutPolicy
    from tesserl_collectors.shared_memory import SharedWeights
    from tesserl_collectors.supervisor import Supervisor
    from tesserl_collectors.weights import SentWeights
    from tesserl_collectors.workers import Workers

__all__ = [
    "Behavior",
    "Collecting",
    "Collector",
    "Episode",
    "Evaluation",
    "EvaluationProcess",
    "FreeCollector",
    "GroupCollecting",
    "GroupCollector",
    "ProcessCollector",
    "ProcessGroupCollector",
    "ProcessTransport",
    "RolloutPolicy",
    "SentWeights",
    "SharedWeights",
    "Supervisor",
    "UniformActions",
    "WorkerWindows",
    "Workers",
    "__version__",
    "closed_afterwards",
    "evaluate_policy",
    "play_episodes",
    "prepare_process",
]

_HOMES = {
    "Behavior": "episodes",
    "Collecting": "interfaces",
    "Collector": "collector",
    "Episode": "collector",
    "Evaluation": "evaluation",
    "EvaluationProcess": "evaluation_process",
    "FreeCollector": "free_collector",
    "GroupCollecting": "interfaces",
    "GroupCollector": "groups",
    "ProcessCollector": "process_collector",
    "ProcessGroupCollector": "process_collector",
    "ProcessTransport": "processes",
    "RolloutPolicy": "rollout_policy",
    "SentWeights": "weights",
    "SharedWeights": "shared_memory",
    "Supervisor": "supervisor",
    "UniformActions": "episodes",
    "WorkerWindows": "free_collector",
    "Workers": "workers",
    "closed_afterwards": "processes",
    "evaluate_policy": "evaluation",
    "play_episodes": "episodes",
    "prepare_process": "process",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
