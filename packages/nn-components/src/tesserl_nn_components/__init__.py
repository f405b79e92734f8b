"""Plain PyTorch network blocks for deep RL: encoders, fusion, heads, noisy layers."""

from tesserl_nn_components.__about__ import __version__
from tesserl_nn_components.conv import Conv2dHead, Conv2dStack, conv2d_output_shape
from tesserl_nn_components.freeze import freeze
from tesserl_nn_components.fusion import ConcatFusion
from tesserl_nn_components.gradients import ScaleGrad, scale_grad
from tesserl_nn_components.heads import DuelingHead, ValueHead
from tesserl_nn_components.init import orthogonal_init
from tesserl_nn_components.leading_dims import infer_leading_dims, restore_leading_dims
from tesserl_nn_components.mlp import MLP
from tesserl_nn_components.noisy import NoisyLinear, reset_noise, zero_noise
from tesserl_nn_components.normalization import FixedNormalizer, RunningNormalizer
from tesserl_nn_components.state_dict import strip_ddp_state_dict, update_state_dict
from tesserl_nn_components.vector import VectorEncoder

__all__ = [
    "ConcatFusion",
    "Conv2dHead",
    "Conv2dStack",
    "DuelingHead",
    "FixedNormalizer",
    "MLP",
    "NoisyLinear",
    "RunningNormalizer",
    "ScaleGrad",
    "ValueHead",
    "VectorEncoder",
    "__version__",
    "conv2d_output_shape",
    "freeze",
    "infer_leading_dims",
    "orthogonal_init",
    "reset_noise",
    "restore_leading_dims",
    "scale_grad",
    "strip_ddp_state_dict",
    "update_state_dict",
    "zero_noise",
]
