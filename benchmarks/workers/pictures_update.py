"""Updates of a network on pictures, with memory that the process keeps or not. A request is a number of updates."""

import json
import sys
from functools import partial

import torch
from stdio import Clock, serve
from torch import nn

from tesserl_collectors.process import keep_freed_memory
from tesserl_nn_components import NATURE_CNN, Conv2dHead, ImpalaCNN

ENCODERS = {"impala": ImpalaCNN, "nature": partial(Conv2dHead, **NATURE_CNN, hidden_sizes=[512])}


def main() -> None:
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if settings["keep"] and not keep_freed_memory():
        raise SystemExit("memory cannot be kept: this is not glibc")
    network = ENCODERS[settings["encoder"]]((4, 84, 84))
    network = nn.Sequential(network, nn.Linear(network.out_features, 6))
    optimizer = torch.optim.Adam(network.parameters())
    pictures = torch.randint(256, (settings["batch_size"], 4, 84, 84), dtype=torch.uint8)

    def answer(updates: int) -> dict[str, float]:
        clock = Clock()
        for _ in range(updates):
            optimizer.zero_grad()
            network(pictures).square().mean().backward()
            optimizer.step()
        return {"count": updates, **clock.read()}

    serve(answer)


if __name__ == "__main__":
    main()
