"""Imported networks with the original's weights give the original's outputs.

The forward passes of the seed system are written here once more, from the description of its networks and with the
names of its weights; they share no code with ours. Both sides compute in float64, so that rounding hides nothing.
"""

import math
import re

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.nn import functional

from tesserl_configs import load_config
from tesserl_configs.importer import import_config
from tesserl_environments import ObservationLayout
from tesserl_trainer.networks.building import build_policy_network, build_quantile_network

BATCH, TAUS, FLOATS, ACTIONS, SIDE = 3, 4, 7, 5, 56
PLAIN = "vis: {cnn: {}}"
IMPALA = (
    "vis: {cnn: {use_impala_cnn: true, impala_model_size: 2, use_adaptive_maxpool: true, adaptive_maxpool_size: 3, "
    "use_spectral_norm: true}}"
)
POOLED = "vis: {cnn: {use_adaptive_maxpool: true, adaptive_maxpool_size: 2, use_spectral_norm: true}}"
NO_IMAGE = "vis: {no_image: true}"


class Original:
    """The seed system's network as a dictionary of weights with its names, drawn when they are first asked for."""

    def __init__(self, seed: int) -> None:
        self.weights: dict[str, torch.Tensor] = {}
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, name: str, *shape: int) -> torch.Tensor:
        scale = 1 / math.sqrt(math.prod(shape[1:]) if len(shape) > 1 else 4)
        return self.weights.setdefault(name, scale * torch.randn(*shape, generator=self.generator, dtype=torch.float64))

    def linear(self, name: str, x: torch.Tensor, width: int, *, noisy: bool = False) -> torch.Tensor:
        if not noisy:
            return x @ self.draw(f"{name}.weight", width, x.shape[-1]).T + self.draw(f"{name}.bias", width)
        ends = self.draw(f"{name}.epsilon_out", width), self.draw(f"{name}.epsilon_in", x.shape[-1])
        weight, bias = (
            self.draw(f"{name}.{kind}_mu", *shape) + self.draw(f"{name}.{kind}_sigma", *shape) * noise
            for kind, shape, noise in (
                ("weight", (width, x.shape[-1]), torch.outer(*ends)),
                ("bias", (width,), ends[0]),
            )
        )
        return x @ weight.T + bias

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        width = x.shape[-1]
        deviation = x.var(-1, unbiased=False, keepdim=True).add(1e-5).sqrt()
        return (x - x.mean(-1, keepdim=True)) / deviation * self.draw(f"{name}.weight", width) + self.draw(
            f"{name}.bias", width
        )

    def convolution(self, name: str, x: torch.Tensor, width: int, kernel: int, spectral: bool, **window: int):
        weight = self.draw(f"{name}.weight", width, x.shape[1], kernel, kernel)
        if spectral:
            matrix = weight.reshape(width, -1)
            left, _, right = torch.linalg.svd(matrix + 0.01, full_matrices=False)  # near the singular vectors
            u, v = (
                self.weights.setdefault(f"{name}.{key}", each) for key, each in (("u", left[:, 0]), ("v", right[0]))
            )
            weight = weight / (u @ matrix @ v)
        return functional.conv2d(x, weight, self.draw(f"{name}.bias", width), **window)

    def image(self, pixels: torch.Tensor, vis: str) -> torch.Tensor:
        """One grey frame of bytes, as (x - 128) / 128, through one of the two stacks."""
        x, spectral = (pixels.double() - 128) / 128, "spectral" in vis
        if "impala" in vis:
            for stage, width in enumerate((32, 64, 64)):  # 16, 32 and 32, times the model size
                name = f"img_head.{stage}"
                x = functional.max_pool2d(self.convolution(f"{name}.conv", x, width, 3, spectral, padding=1), 3, 2, 1)
                for residual in (f"{name}.residual_0", f"{name}.residual_1"):
                    inner = self.convolution(f"{residual}.conv_0", x.clamp(min=0), width, 3, spectral, padding=1)
                    x = x + self.convolution(f"{residual}.conv_1", inner.clamp(min=0), width, 3, spectral, padding=1)
            x = x.clamp(min=0)
        else:
            for index, (width, kernel, stride) in enumerate(((16, 4, 2), (32, 4, 2), (64, 3, 2), (32, 3, 1))):
                x = leaky(self.convolution(f"img_head.{2 * index}", x, width, kernel, spectral, stride=stride))
        if "adaptive" in vis:
            x = functional.adaptive_max_pool2d(x, 3 if "impala" in vis else 2)
        return x.flatten(1)

    def floats(self, x: torch.Tensor, activate, *, norm: bool = False) -> torch.Tensor:
        x = (x - MEAN) / STD
        for index in range(2):
            x = self.linear(f"float_feature_extractor.{index * (3 if norm else 2)}", x, 24)
            x = activate(self.norm(f"float_feature_extractor.{3 * index + 1}", x) if norm else x)
        return x

    def head(self, name: str, x: torch.Tensor, outputs: int, *, norm: bool, noisy: bool, noisy_output: bool):
        x = self.linear(f"{name}.0", x, 16, noisy=noisy)
        x = leaky(self.norm(f"{name}.1", x) if norm else x)
        return self.linear(f"{name}.{3 if norm else 2}", x, outputs, noisy=noisy_output)

    def quantiles(self, state: torch.Tensor, tau: torch.Tensor, blocks: int, *, norm: bool, noisy: bool):
        """Quantile-major rows, as there: all observations at the first fraction, then at the second, and so on."""
        cosines = torch.cos(math.pi * torch.arange(1, 13, dtype=torch.float64) * tau)
        h = state.repeat(len(tau) // len(state), 1) * leaky(self.linear("iqn_fc.0", cosines, state.shape[1]))
        value = self.head("V_head", h, 1, norm=norm, noisy=noisy, noisy_output=False)
        advantage = self.head("A_head", h, blocks * ACTIONS, norm=norm, noisy=noisy, noisy_output=noisy)
        advantage = advantage.view(-1, blocks, ACTIONS)
        return value.unsqueeze(1) + advantage - advantage.mean(-1, keepdim=True)


MEAN, STD = torch.linspace(-2, 3, FLOATS), torch.linspace(0.5, 4, FLOATS)


def leaky(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x >= 0, x, 0.01 * x)


def rectified(x: torch.Tensor) -> torch.Tensor:
    return x.clamp(min=0)


def imported(tmp_path, text: str):
    """The file that the import writes, with the statistics of the game, which are to be mended."""
    seed, ours = tmp_path / "seed.yaml", tmp_path / "ours.yaml"
    seed.write_text(text)
    ours.write_text(import_config(seed, environment_id="Task-v0").text)
    statistics = f"{{kind: fixed, mean: {MEAN.tolist()}, std: {STD.tolist()}}}"
    return load_config(ours, [f"nn.vector.normalization={statistics}"])


def layout_of(vis: str) -> ObservationLayout:
    vector = spaces.Box(-9, 9, (FLOATS,))
    if vis == NO_IMAGE:
        return ObservationLayout(vector)
    image = spaces.Box(0, 255, (1, SIDE, SIDE), np.uint8)
    return ObservationLayout(spaces.Dict({"image": image, "vector": vector}), channels="first")


def inputs_of(vis: str) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(256, (BATCH, 1, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    floats = 3 * torch.randn(BATCH, FLOATS, generator=generator, dtype=torch.float64)
    return [floats] if vis == NO_IMAGE else [pixels, floats]


def state_of(original: Original, vis: str, inputs: list[torch.Tensor], activate, **options) -> torch.Tensor:
    floats = original.floats(inputs[-1], activate, **options)
    return floats if vis == NO_IMAGE else torch.cat([original.image(inputs[0], vis), floats], 1)


def body_names(vis: str) -> dict[str, str]:
    """The original's names of the encoders -> ours, each the beginning of those of weights."""
    names = {"float_feature_extractor.": "body.vector.mlp.layers."}
    for stage in range(3):
        names[f"img_head.{stage}.conv."] = f"body.vision.stages.{stage}.conv."
        for block in range(2):
            for index in range(2):
                theirs = f"img_head.{stage}.residual_{block}.conv_{index}."
                names[theirs] = f"body.vision.stages.{stage}.blocks.{block}.conv{index + 1}."
    return names if "impala" in vis else {**names, "img_head.": "body.vision.conv.layers."}


def load(network, original: Original, names: dict[str, str]) -> None:
    """Gives every parameter of ours the original's weight; nothing is left over on either side."""
    given = {}
    for theirs, weight in original.weights.items():
        [begin] = [begin for begin in names if theirs.startswith(begin)]
        given[names[begin] + theirs.removeprefix(begin)] = weight
    assert {name for name, _ in network.named_parameters()} <= set(given)
    missing, unexpected = network.load_state_dict(given, strict=False)
    assert unexpected == []
    # statistics come from the file; noise in the last layer of the value has sigmas of 0
    assert all(re.match(r"body\.vector\.normalizer\.|head\.value\.layers\.\d\.epsilon_", name) for name in missing)


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize(("norm", "noisy"), [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("vis", [PLAIN, POOLED, IMPALA, NO_IMAGE], ids=["plain", "pooled", "impala", "no image"])
def test_a_quantile_network_has_the_outputs_of_the_original(tmp_path, vis, norm, noisy, blocks):
    switches = f"btr: {{use_layer_norm: {str(norm).lower()}, use_noisy_linear: {str(noisy).lower()}}}"
    iqn = "float: {mlp: {hidden_dim: 24}}, iqn: {embedding_dimension: 12}, decoder: {dense_hidden_dimension: 32}"
    config = imported(tmp_path, f"nn: {{{vis}, {iqn}}}\n{switches}\n")
    network = build_quantile_network(config, layout_of(vis), ACTIONS, None if blocks == 1 else blocks).eval().double()
    original, inputs = Original(seed=2), inputs_of(vis)
    tau = torch.rand(TAUS * BATCH, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    state = state_of(original, vis, inputs, leaky, norm=norm)
    expected = original.quantiles(state, tau, blocks, norm=norm, noisy=noisy)
    expected = expected.view(TAUS, BATCH, blocks, ACTIONS).transpose(0, 1)

    # ours has a value for each block, with noise in its last layer too
    last = f"V_head.{3 if norm else 2}"
    weight, bias = (original.weights.pop(f"{last}.{kind}") for kind in ("weight", "bias"))
    for kind, tensor in (("weight", weight.expand(blocks, -1)), ("bias", bias.expand(blocks))):
        original.weights[f"{last}.{kind}_mu" if noisy else f"{last}.{kind}"] = tensor
        if noisy:
            original.weights[f"{last}.{kind}_sigma"] = torch.zeros_like(tensor)
    names = {**body_names(vis), "iqn_fc.0.": "embedding."}
    load(network, original, {**names, "V_head.": "head.value.layers.", "A_head.": "head.advantage.layers."})
    with torch.no_grad():
        outputs = network(*inputs, tau.view(TAUS, BATCH).T)
    torch.testing.assert_close(outputs, expected.squeeze(2) if blocks == 1 else expected, rtol=0, atol=1e-5)
    assert outputs.std() > 0.05


@pytest.mark.parametrize("algorithm", ["ppo", "dpo", "grpo"])
@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("vis", [PLAIN, POOLED, IMPALA, NO_IMAGE], ids=["plain", "pooled", "impala", "no image"])
def test_a_policy_has_the_outputs_of_the_original(tmp_path, vis, blocks, algorithm):
    nn = f"nn: {{{vis}, float: {{mlp: {{hidden_dim: 24}}}}, decoder: {{dense_hidden_dimension: 32}}}}\n"
    config = imported(tmp_path, f"{nn}training: {{algorithm: {algorithm}}}\n")
    space = spaces.Discrete(ACTIONS) if blocks == 1 else spaces.MultiDiscrete([ACTIONS] * blocks)
    network = build_policy_network(config.nn, layout_of(vis), space, orthogonal=False).eval().double()
    original, inputs = Original(seed=2), inputs_of(vis)
    hidden = state_of(original, vis, inputs, rectified)
    for index in (0, 2):
        hidden = rectified(original.linear(f"trunk.{index}", hidden, 32))
    logits = original.linear("policy_head", hidden, blocks * ACTIONS).view(-1, blocks, ACTIONS)
    value = original.linear("value_head", hidden, 1)
    names = {**body_names(vis), "trunk.": "shared.layers."}
    load(network, original, {**names, "policy_head.": "policy.mlp.layers.0.", "value_head.": "value.mlp.layers.0."})
    with torch.no_grad():
        outputs = network(*inputs)
    torch.testing.assert_close(outputs, (logits.squeeze(1) if blocks == 1 else logits, value), rtol=0, atol=1e-5)
    assert outputs[0].std() > 0.05
