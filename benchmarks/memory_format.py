"""Measure the effect of channels_last on convolutions by image size; the trainer's default follows from it."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from common.harness import HEADER, Bar, Comparison, arguments, compare, finish, repeated
from tesserl_nn_components import COMPACT_CNN, NATURE_CNN, Conv2dHead, ImpalaCNN

CHANNELS, BATCHES, SIDES = 4, (8, 32, 128), (10, 16, 24, 32, 42, 64, 84)
MINATAR_CNN = {"channels": (16,), "kernel_sizes": (3,), "strides": (1,)}
LARGEST = 128 * 64 * 64
"""Most pixels of a batch; with more, a round takes seconds."""


def encoders(side: int) -> dict[str, nn.Module]:
    """Return the encoders that accept images of this size."""
    shape = (CHANNELS, side, side)
    found: dict[str, nn.Module] = {
        "CNN of MinAtar": Conv2dHead(shape, **MINATAR_CNN, hidden_sizes=None),
        "IMPALA": ImpalaCNN(shape),
    }
    if side >= 42:
        found |= {
            "compact CNN": Conv2dHead(shape, **COMPACT_CNN, hidden_sizes=None),
            "Nature CNN": Conv2dHead(shape, **NATURE_CNN, hidden_sizes=None),
        }
    return found


def passes(encoder: nn.Module, pixels: Tensor) -> dict[str, Callable[[], None]]:
    """Return the passes of acting, of computing targets, and of learning."""

    def forward() -> None:
        with torch.no_grad():
            encoder(pixels)

    def both() -> None:
        encoder(pixels).sum().backward()

    return {"forward": forward, "forward + backward": both}


def main() -> list[Comparison]:
    options = arguments(__doc__, seconds=0.1).parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(HEADER)
    comparisons = []
    for side in SIDES:
        for name, encoder in encoders(side).items():
            other = copy.deepcopy(encoder).to(memory_format=torch.channels_last)
            for batch in BATCHES:
                if batch * side * side > LARGEST:
                    continue
                pixels = torch.randint(256, (batch, CHANNELS, side, side), dtype=torch.uint8)
                plain, last = passes(encoder, pixels), passes(other, pixels)
                for what in plain:
                    comparisons.append(
                        compare(
                            f"{name}, {side} x {side}, batch {batch}, {what}",
                            repeated(plain[what], options.seconds),
                            repeated(last[what], options.seconds),
                            Bar("cost"),
                            rounds=options.rounds,
                        )
                    )
    return comparisons


if __name__ == "__main__":
    finish("memory_format", main())
