"""Plain PyTorch network blocks for deep RL: encoders, fusion, memory, heads, noisy layers."""

from tesserl_nn_components.__about__ import __version__
from tesserl_nn_components.bodies import require_body, width_of
from tesserl_nn_components.conv import COMPACT_CNN, NATURE_CNN, Conv2dHead, Conv2dStack, conv2d_output_shape
from tesserl_nn_components.decoder import QuantileDecoder, TransformerSlot
from tesserl_nn_components.fusion import ConcatFusion, PostConcatFusion, UnifiedFusion, VisionTransformerFusion
from tesserl_nn_components.gradients import ScaleGrad, scale_grad
from tesserl_nn_components.heads import CategoricalHead, DuelingHead, GaussianHead, MultiCategoricalHead, ValueHead
from tesserl_nn_components.hf import HFVisionEncoder
from tesserl_nn_components.hub import pull_from_hub, push_to_hub
from tesserl_nn_components.impala import ImpalaCNN
from tesserl_nn_components.init import orthogonal_init
from tesserl_nn_components.leading_dims import infer_leading_dims, restore_leading_dims
from tesserl_nn_components.mlp import MLP
from tesserl_nn_components.noisy import NoisyLinear, reset_noise, zero_noise
from tesserl_nn_components.normalization import FixedNormalizer, RunningNormalizer
from tesserl_nn_components.parts import freeze, parameter_groups
from tesserl_nn_components.pixels import random_crop
from tesserl_nn_components.precision import keep_float64
from tesserl_nn_components.pretrained import from_pretrained, load_pretrained, read_config, save_pretrained
from tesserl_nn_components.recurrent import RecurrentBody
from tesserl_nn_components.spectral import SpectralConv2d
from tesserl_nn_components.state_dict import strip_ddp_state_dict, update_state_dict
from tesserl_nn_components.tokens import DenseTokenizer, FeatureTokenizer, TokenSequence
from tesserl_nn_components.transformer import TokenEncoder, TokenPooling, TransformerLayer
from tesserl_nn_components.trunks import CNNTrunk, HFEmbeddingTrunk, LinearTrunk, MLPTrunk, TransformerTrunk
from tesserl_nn_components.vector import VectorEncoder
from tesserl_nn_components.vit import PatchViT

__all__ = [
    "CNNTrunk",
    "COMPACT_CNN",
    "CategoricalHead",
    "ConcatFusion",
    "Conv2dHead",
    "Conv2dStack",
    "DenseTokenizer",
    "DuelingHead",
    "FeatureTokenizer",
    "FixedNormalizer",
    "GaussianHead",
    "HFEmbeddingTrunk",
    "HFVisionEncoder",
    "ImpalaCNN",
    "LinearTrunk",
    "MLP",
    "MLPTrunk",
    "MultiCategoricalHead",
    "NATURE_CNN",
    "NoisyLinear",
    "PatchViT",
    "PostConcatFusion",
    "QuantileDecoder",
    "RecurrentBody",
    "RunningNormalizer",
    "ScaleGrad",
    "SpectralConv2d",
    "TokenEncoder",
    "TokenPooling",
    "TokenSequence",
    "TransformerLayer",
    "TransformerSlot",
    "TransformerTrunk",
    "UnifiedFusion",
    "ValueHead",
    "VectorEncoder",
    "VisionTransformerFusion",
    "__version__",
    "conv2d_output_shape",
    "freeze",
    "from_pretrained",
    "infer_leading_dims",
    "keep_float64",
    "load_pretrained",
    "orthogonal_init",
    "parameter_groups",
    "pull_from_hub",
    "push_to_hub",
    "random_crop",
    "read_config",
    "require_body",
    "reset_noise",
    "restore_leading_dims",
    "save_pretrained",
    "scale_grad",
    "strip_ddp_state_dict",
    "update_state_dict",
    "width_of",
    "zero_noise",
]
