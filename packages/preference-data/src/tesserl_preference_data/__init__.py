"""Trajectories and preference pairs on disk and in memory: stores, segments, teachers, labels by people.

Public names are imported on first use, so that torch is only imported when it is needed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tesserl_preference_data.__about__ import __version__

if TYPE_CHECKING:
    from tesserl_preference_data.concatenation import concatenate
    from tesserl_preference_data.cut import cut_segments
    from tesserl_preference_data.files import NoStoreError, StoreError
    from tesserl_preference_data.labels import append_label, read_labels
    from tesserl_preference_data.make import make_pairs, rank_pairs, score_first_steps, segment_scores
    from tesserl_preference_data.pairs import PreferencePairs
    from tesserl_preference_data.pictures import encode_frame, frame_png
    from tesserl_preference_data.pool import SegmentBlock, SegmentPool
    from tesserl_preference_data.segments import Segments, read_segments
    from tesserl_preference_data.store import append_pairs, load_pairs, save_pairs
    from tesserl_preference_data.teachers import ScriptedTeacher, TeacherLabels
    from tesserl_preference_data.trajectories import Trajectories, load_trajectories
    from tesserl_preference_data.trajectory_writer import TrajectoryWriter
    from tesserl_storage.locks import InUseError

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
    "score_first_steps",
    "segment_scores",
]

_HOMES = {
    "InUseError": "tesserl_storage.locks",
    "NoStoreError": "tesserl_preference_data.files",
    "PreferencePairs": "tesserl_preference_data.pairs",
    "ScriptedTeacher": "tesserl_preference_data.teachers",
    "SegmentBlock": "tesserl_preference_data.pool",
    "SegmentPool": "tesserl_preference_data.pool",
    "Segments": "tesserl_preference_data.segments",
    "StoreError": "tesserl_preference_data.files",
    "TeacherLabels": "tesserl_preference_data.teachers",
    "Trajectories": "tesserl_preference_data.trajectories",
    "TrajectoryWriter": "tesserl_preference_data.trajectory_writer",
    "append_label": "tesserl_preference_data.labels",
    "append_pairs": "tesserl_preference_data.store",
    "concatenate": "tesserl_preference_data.concatenation",
    "cut_segments": "tesserl_preference_data.cut",
    "encode_frame": "tesserl_preference_data.pictures",
    "frame_png": "tesserl_preference_data.pictures",
    "load_pairs": "tesserl_preference_data.store",
    "load_trajectories": "tesserl_preference_data.trajectories",
    "make_pairs": "tesserl_preference_data.make",
    "rank_pairs": "tesserl_preference_data.make",
    "read_labels": "tesserl_preference_data.labels",
    "read_segments": "tesserl_preference_data.segments",
    "save_pairs": "tesserl_preference_data.store",
    "score_first_steps": "tesserl_preference_data.make",
    "segment_scores": "tesserl_preference_data.make",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
