"""Every image encoder and every fusion, forward and backward, against the same layers in plain PyTorch.

It also measures, without a bar, the effect of channels_last and bf16 autocast on each image encoder.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from common.harness import HEADER, Bar, Comparison, arguments, compare, finish, repeated
from floors import encoders, fusions
from tesserl_nn_components import (
    COMPACT_CNN,
    NATURE_CNN,
    ConcatFusion,
    Conv2dHead,
    HFVisionEncoder,
    ImpalaCNN,
    PatchViT,
    PostConcatFusion,
    TransformerTrunk,
    UnifiedFusion,
    VectorEncoder,
    VisionTransformerFusion,
)

BATCH, FEATURES, WIDTH, PATCH, TOKENS = 16, 20, 128, 12, 4
ATARI, SMALL = (4, 84, 84), (3, 64, 64)
Floor = Callable[..., Tensor]


@dataclass(frozen=True)
class Case:
    """A network of ours, the same in plain PyTorch, and the shapes of its inputs without the batch."""

    name: str
    build: Callable[[], nn.Module]
    floor: Callable[[nn.Module], Floor]  # made from our network, because both sides share a third-party backbone
    shapes: tuple[tuple[int, ...], ...]

    def inputs(self) -> list[Tensor]:
        """Return images for shapes of three sizes, vectors otherwise."""
        return [
            torch.randint(256, (BATCH, *shape), dtype=torch.uint8) if len(shape) == 3 else torch.randn(BATCH, *shape)
            for shape in self.shapes
        ]


class Side:
    """A forward and a backward pass; parameters by name, in ``gradients`` after the call."""

    def __init__(self, forward: Floor, parameters: dict[str, Tensor], inputs: list[Tensor], gradient: Tensor) -> None:
        self.forward, self.parameters, self.inputs, self.gradient = forward, parameters, inputs, gradient

    def __call__(self) -> Tensor:
        for parameter in self.parameters.values():
            parameter.grad = None
        output = self.forward(*self.inputs)
        output.backward(self.gradient)
        return output

    def gradients(self) -> dict[str, Tensor]:
        return {name: value.grad for name, value in self.parameters.items() if value.grad is not None}


def sides(case: Case) -> tuple[Side, Side]:
    """Return ours and the floor, with equal weights, buffers, inputs and gradient of the output."""
    torch.manual_seed(0)
    network = case.build()
    inputs = case.inputs()
    gradient = torch.randn(BATCH, network.out_features)
    twin = copy.deepcopy(network)
    state = {**dict(twin.named_parameters()), **dict(twin.named_buffers())}
    floor = partial(case.floor(twin), state)
    ours = Side(network, dict(network.named_parameters()), inputs, gradient)
    return ours, Side(floor, dict(twin.named_parameters()), inputs, gradient)


def difference(case: Case) -> float:
    """Return the largest difference of output and gradients in three passes, each relative to its largest entry."""
    ours, floor = sides(case)
    worst = 0.0
    for _ in range(3):  # each pass updates the vectors of spectral normalisation
        pairs = [(ours().detach(), floor().detach())]
        mine, other = ours.gradients(), floor.gradients()
        if mine.keys() != other.keys():
            raise SystemExit(f"{case.name}: the floor trains other parameters: {sorted(mine.keys() ^ other.keys())}")
        pairs += [(mine[name], other[name]) for name in mine]
        worst = max(worst, *(float((one - two).abs().max() / two.abs().max()) for one, two in pairs))
    return worst


def vision_cases() -> Iterator[Case]:
    """Yield the image encoders; the Hugging Face one only if transformers is installed."""
    yield Case(
        "compact CNN",
        lambda: Conv2dHead(SMALL, **COMPACT_CNN, hidden_sizes=None),
        lambda _: partial(encoders.cnn, strides=COMPACT_CNN["strides"]),
        (SMALL,),
    )
    yield Case(
        "Nature CNN",
        lambda: Conv2dHead(ATARI, **NATURE_CNN, hidden_sizes=None),
        lambda _: partial(encoders.cnn, strides=NATURE_CNN["strides"]),
        (ATARI,),
    )
    yield Case("IMPALA", lambda: ImpalaCNN(ATARI), lambda _: encoders.impala, (ATARI,))
    yield Case(
        "IMPALA x2, spectral, pool 6",
        lambda: ImpalaCNN(ATARI, width=2, pool_size=6, spectral_norm="residual"),
        lambda _: partial(encoders.impala, pool_size=6, spectral=True),
        (ATARI,),
    )
    yield Case(
        "ViT, 2 layers",
        lambda: PatchViT(ATARI, patch_size=PATCH, d_model=WIDTH, num_layers=2, num_heads=fusions.HEADS),
        lambda _: partial(encoders.vit, patch_size=PATCH, num_heads=fusions.HEADS),
        (ATARI,),
    )
    if find_spec("transformers") is None:
        print("Hugging Face ViT: not measured, transformers is not installed")
        return
    yield Case("HF ViT, 2 layers", hf_encoder, hf_floor, (SMALL,))


def hf_encoder() -> nn.Module:
    from transformers import ViTConfig

    config = ViTConfig(
        hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4, intermediate_size=4 * WIDTH, image_size=64,
        patch_size=8, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return HFVisionEncoder(SMALL, config)


def hf_floor(network: nn.Module) -> Floor:
    backbone = network.backbone
    return partial(encoders.hf_vit, backbone=lambda images: backbone(images).last_hidden_state)


def fusion_cases() -> Iterator[Case]:
    """The bodies of both branches: a ViT of one layer, an MLP of one layer, a transformer trunk of one layer."""

    def branches(num_layers: int = 1) -> dict[str, nn.Module]:
        statistics = {"mean": [0.1] * FEATURES, "std": [2.0] * FEATURES}
        vision = PatchViT(ATARI, patch_size=PATCH, d_model=WIDTH, num_layers=num_layers, num_heads=fusions.HEADS)
        return {"vision": vision, "vector": VectorEncoder(FEATURES, hidden_sizes=[32], **statistics)}

    tokens = {"out_features": 256, "d_model": WIDTH, "trunk": partial(TransformerTrunk, num_layers=1)}
    sequence = {**tokens, "layout": "token_sequence"}
    fused = {"out_features": 256, "vision_features": 64}
    late, early = PostConcatFusion, UnifiedFusion

    def case(name: str, build: Callable[[], nn.Module], floor: Floor, **options: int) -> Case:
        floor = partial(floor, patch_size=PATCH, **options)
        return Case(name, build, lambda _: floor, (ATARI, (FEATURES,)))

    yield case("none", lambda: ConcatFusion(**branches()), fusions.concat)
    yield case("vision_transformer", lambda: VisionTransformerFusion(**branches(), **fused), fusions.vision_transformer)
    yield case(
        "post_concat, fused_vector",
        lambda: late(**branches(), **tokens, num_tokens=TOKENS),
        fusions.fused_vector,
        num_tokens=TOKENS,
    )
    yield case(
        "post_concat, token_sequence, dense",
        lambda: late(**branches(), **sequence, num_tokens=TOKENS),
        fusions.token_sequence,
    )
    yield case(
        "post_concat, token_sequence, per_feature",
        lambda: late(**branches(), **sequence, vector_tokens="per_feature"),
        fusions.token_sequence,
    )
    yield case("unified", lambda: early(**branches(0), **tokens, num_vector_tokens=TOKENS), fusions.unified)


def measure(case: Case, seconds: float, rounds: int) -> Comparison:
    """Compare ours with the floor."""
    found = difference(case)
    if not found <= 1e-6:
        raise SystemExit(f"{case.name}: the floor is no floor: output or gradients differ by {found:.1e}")
    ours, floor = sides(case)
    return compare(case.name, repeated(floor, seconds), repeated(ours, seconds), Bar("cost", 1.10), rounds=rounds)


def variants(case: Case, seconds: float, rounds: int) -> Iterator[Comparison]:
    """Compare the encoder in channels_last, under bf16 autocast, and with both, with the plain encoder."""
    plain, _ = sides(case)
    for name, last, half in (("channels_last", True, False), ("bf16", False, True), ("both", True, True)):
        side, _ = sides(case)
        if last:
            side.forward.to(memory_format=torch.channels_last)
            side.inputs = [pixels.contiguous(memory_format=torch.channels_last) for pixels in side.inputs]
        if half:
            side.forward, side.gradient = autocast(side.forward), side.gradient.bfloat16()
        peer, own = repeated(plain, seconds), repeated(side, seconds)
        yield compare(f"{case.name}: {name}", peer, own, Bar("cost"), rounds=rounds)


def autocast(network: nn.Module) -> Floor:
    """Return the forward pass under autocast; the backward pass runs outside, as PyTorch recommends."""

    def forward(*inputs: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return network(*inputs)

    return forward


def main() -> list[Comparison]:
    options = arguments(__doc__, seconds=0.3).parse_args()
    torch.set_num_threads(1)
    vision = list(vision_cases())
    print(HEADER)
    comparisons = [measure(case, options.seconds, options.rounds) for case in [*vision, *fusion_cases()]]
    print("\nchannels_last and bf16 by the same encoder without them\n" + HEADER)
    for case in vision:
        comparisons += variants(case, options.seconds, options.rounds)
    return comparisons


if __name__ == "__main__":
    finish("networks", main())
