"""Updates of one shape: this project's learner in eager form, compiled and as a CUDA graph, and plain torch."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

import btr_update
import ppo_update
from tesserl_training.cuda_graph import GraphedLearner
from tesserl_training.learner import Learner

FORMS = ("eager", "compiled", "graph")
MAX_GRAD_NORM = 10.0

Update = Callable[[], dict[str, Tensor]]
"""One gradient step; returns its metrics."""


@dataclass(frozen=True)
class Shape:
    """Losses and batches to update with.

    Args:
        name: name in the table.
        make_ours: from a device to the loss, its parameters and a batch.
        make_floor: from a device to a function that returns the loss in plain torch, and its parameters.
        frames: environment frames per update in the published settings.
    """

    name: str
    make_ours: Callable[[str], tuple[nn.Module, list[nn.Parameter], TensorDictBase]]
    make_floor: Callable[[str], tuple[Callable[[], Tensor], list[nn.Parameter]]]
    frames: float


def ppo_shape() -> Shape:
    """Return PPO on CartPole's vectors: 4 updates of 256 steps for each 256 steps of the environments."""

    def sides(device: str) -> tuple[ppo_update.Ours, ppo_update.Floor]:
        torch.manual_seed(0)
        network = ppo_update.build_network().to(device)
        data = {name: entry.to(device) for name, entry in ppo_update.build_batch().items()}
        return ppo_update.Ours(network, data, metrics=True), ppo_update.Floor(network, data, metrics=True)

    def make_ours(device: str) -> tuple[nn.Module, list[nn.Parameter], TensorDictBase]:
        ours = sides(device)[0]
        return ours.loss, ours.parameters, ours.batch.to(device)

    def make_floor(device: str) -> tuple[Callable[[], Tensor], list[nn.Parameter]]:
        floor = sides(device)[1]
        return lambda: floor.evaluate()[0], floor.parameters

    return Shape(f"PPO, vectors, batch {ppo_update.BATCH}", make_ours, make_floor, ppo_update.BATCH / 4)


def btr_shape(*, batch_size: int, pixels: tuple[int, ...], width: int, hidden: int) -> Shape:
    """Return Beyond The Rainbow on pixels: an update for each 64 steps of 4 frames."""

    def sides(device: str) -> tuple[btr_update.Ours, btr_update.Floor]:
        case = btr_update.Case(batch_size=batch_size, device=device)
        return btr_update.sides(case, pixels=pixels, width=width, hidden=hidden)

    def make_ours(device: str) -> tuple[nn.Module, list[nn.Parameter], TensorDictBase]:
        ours = sides(device)[0]
        return ours.loss, [each for each in ours.parameters.values() if each.requires_grad], ours.batch

    def make_floor(device: str) -> tuple[Callable[[], Tensor], list[nn.Parameter]]:
        floor = sides(device)[1]
        return floor, [each for each in floor.parameters.values() if each.requires_grad]

    frames = btr_update.ENVIRONMENTS * btr_update.FRAMES_A_STEP
    size = "x".join(map(str, pixels[1:]))
    return Shape(f"BTR, {size} pixels, batch {batch_size}", make_ours, make_floor, frames)


def our_update(shape: Shape, form: str, device: str, *, learning_rate: float) -> tuple[Update, list[nn.Parameter]]:
    """Return the update of this project's learner, and the parameters that it changes."""
    loss, parameters, batch = shape.make_ours(device)
    graphed = form == "graph"
    rate = torch.tensor(learning_rate, device=device) if graphed else learning_rate
    optimizer = torch.optim.Adam(parameters, lr=rate, fused=True, capturable=graphed)
    forward = torch.compile(loss) if form == "compiled" else loss
    learner = (GraphedLearner if graphed else Learner)(loss, forward, parameters, optimizer, MAX_GRAD_NORM)
    return lambda: learner.update(batch.copy(), 1, lambda _: None), parameters


def floor_update(shape: Shape, form: str, device: str, *, learning_rate: float) -> tuple[Update, list[nn.Parameter]]:
    """Return the same update in plain torch, and the parameters that it changes."""
    forward, parameters = shape.make_floor(device)
    forward = torch.compile(forward) if form == "compiled" else forward
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, fused=True)

    def update() -> dict[str, Tensor]:
        optimizer.zero_grad()
        loss = forward()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
        optimizer.step()
        return {"loss": loss.detach(), "gradient_norm": norm}

    return update, parameters


def reason_against(form: str, device: str, *, is_quick: bool) -> str | None:
    """Return the reason why a form cannot run on a device; None if it can."""
    if form == "graph" and device == "cpu":
        return "CUDA graphs need a GPU"
    if form == "compiled" and device == "simulated":
        return "torch.compile has no kernels for the simulated device"
    if form == "compiled" and is_quick:
        return "--quick does not compile"
    return None
