"""Preference optimisation for control: pairs of trajectory segments in, a better policy out, as a torchrl loss."""

from tesserl_preference_opt.cpl import BehaviorCloningLoss, CPLLoss
from tesserl_preference_opt.kto import KTOLoss
from tesserl_preference_opt.loss import PreferenceLoss
