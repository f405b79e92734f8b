"""Preference optimisation for control: pairs of trajectory segments in, a better policy out, as a torchrl loss."""

from tesserl_preference_opt.__about__ import __version__
from tesserl_preference_opt.concatenation import concatenate
from tesserl_preference_opt.cpl import BehaviorCloningLoss, CPLLoss
from tesserl_preference_opt.cut import cut_segments
from tesserl_preference_opt.files import StoreError
from tesserl_preference_opt.functional import (
    bc_loss,
    cpl_advantage,
    cpl_loss,
    cpl_ranked_loss,
    kto_loss,
    preference_loss,
    sum_log_probs,
)
from tesserl_preference_opt.kto import KTOLoss
from tesserl_preference_opt.labels import append_label, read_labels
from tesserl_preference_opt.loss import PreferenceLoss
from tesserl_preference_opt.make import make_pairs, rank_pairs, segment_scores
from tesserl_preference_opt.metrics import evaluate_pairs
from tesserl_preference_opt.pairs import PreferencePairs
from tesserl_preference_opt.pool import SegmentBlock, SegmentPool
from tesserl_preference_opt.reference_log_probs import precompute_reference_log_probs
from tesserl_preference_opt.store import append_pairs, load_pairs, save_pairs
from tesserl_preference_opt.teachers import ScriptedTeacher, TeacherLabels

__all__ = [
    "BehaviorCloningLoss",
    "CPLLoss",
    "KTOLoss",
    "PreferenceLoss",
    "PreferencePairs",
    "ScriptedTeacher",
    "SegmentBlock",
    "SegmentPool",
    "StoreError",
    "TeacherLabels",
    "__version__",
    "append_label",
    "append_pairs",
    "bc_loss",
    "concatenate",
    "cpl_advantage",
    "cpl_loss",
    "cpl_ranked_loss",
    "cut_segments",
    "evaluate_pairs",
    "kto_loss",
    "load_pairs",
    "make_pairs",
    "precompute_reference_log_probs",
    "preference_loss",
    "rank_pairs",
    "read_labels",
    "save_pairs",
    "segment_scores",
    "sum_log_probs",
]
