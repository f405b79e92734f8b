"""Trajectories and pairs of segments on disk and in memory: stores, cutting, teachers, labels by people.

The public names are imported when they are first used, so that writing a file atomically does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tesserl_preference_data.__about__ import __version__

if TYPE_CHECKING:
    from tesserl_preference_data.concatenation import concatenate
    from tesserl_preference_data.cut import cut_segments
    from tesserl_preference_data.files import NoStoreError, StoreError
    from tesserl_preference_data.labels import append_label, read_labels
    from tesserl_preference_data.locks import InUseError
    from tesserl_preference_data.make import make_pairs, rank_pairs, segment_scores
    from tesserl_preference_data.pairs import PreferencePairs
    from tesserl_preference_data.pictures import encode_frame, frame_png
    from tesserl_preference_data.pool import SegmentBlock, SegmentPool
    from tesserl_preference_data.segments import Segments, read_segments
    from tesserl_preference_data.store import append_pairs, load_pairs, save_pairs
    from tesserl_preference_data.teachers import ScriptedTeacher, TeacherLabels
    from tesserl_preference_data.trajectories import Trajectories, load_trajectories
    from tesserl_preference_data.trajectory_writer import TrajectoryWriter

__all__ = [
    "InUseError",
    "NoStoreError",
    "PreferencePairs",
    "ScriptedTeacher",
    "SegmentBlock",
    "SegmentPool",
    "Segments",
    "StoreError",
    "TeacherLabels",
    "Trajectories",
    "TrajectoryWriter",
    "__version__",
    "append_label",
    "append_pairs",
    "concatenate",
    "cut_segments",
    "encode_frame",
    "frame_png",
    "load_pairs",
    "load_trajectories",
    "make_pairs",
    "rank_pairs",
    "read_labels",
    "read_segments",
    "save_pairs",
    "segment_scores",
]

_HOMES = {
    "InUseError": "locks",
    "NoStoreError": "files",
    "PreferencePairs": "pairs",
    "ScriptedTeacher": "teachers",
    "SegmentBlock": "pool",
    "SegmentPool": "pool",
    "Segments": "segments",
    "StoreError": "files",
    "TeacherLabels": "teachers",
    "Trajectories": "trajectories",
    "TrajectoryWriter": "trajectory_writer",
    "append_label": "labels",
    "append_pairs": "store",
    "concatenate": "concatenation",
    "cut_segments": "cut",
    "encode_frame": "pictures",
    "frame_png": "pictures",
    "load_pairs": "store",
    "load_trajectories": "trajectories",
    "make_pairs": "make",
    "rank_pairs": "make",
    "read_labels": "labels",
    "read_segments": "segments",
    "save_pairs": "store",
    "segment_scores": "make",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
