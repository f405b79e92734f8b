"""One update of Beyond The Rainbow on 84 x 84 x 4 pixels, clipped gradient and Adam included, against plain PyTorch.

IMPALA x2 with spectral norm and pooling to 6 x 6, dueling noisy heads of 512, 8 fractions, Munchausen. Beside it the
time of acting in 64 environments, and what 200 million frames would take: an update per 64 steps, 4 frames a step.
"""

import copy
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torch import Tensor

from common.harness import HEADER, Bar, Comparison, Measurement, Side, arguments, compare, finish
from floors.btr import btr_loss
from floors.iqn import cosine_frequencies
from tesserl_iqn import IQNLoss, QuantileNetwork, QuantilePolicy, TargetUpdater
from tesserl_nn_components import ImpalaCNN

PIXELS, ACTIONS, WIDTH, HIDDEN, COSINES, TAUS = (4, 84, 84), 18, 2, 512, 64, 8
DISCOUNT, STEPS, MUNCHAUSEN, LEARNING_RATE, MAX_GRAD_NORM = 0.997, 3, (0.9, 0.03, -1.0), 1e-4, 10.0
ENVIRONMENTS, FRAMES, FRAMES_A_STEP = 64, 200e6, 4


@dataclass(frozen=True)
class Case:
    """The forms that are measured."""

    batch_size: int = 32
    log_policy: str = "online"
    device: str = "cpu"
    channels_last: bool = False
    bf16: bool = False
    compile: bool = False

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device, torch.bfloat16) if self.bf16 else nullcontext()

    def compiled(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return torch.compile(function) if self.compile else function


def batch(case: Case, pixels: tuple[int, ...] = PIXELS) -> dict[str, Tensor]:
    """Return transitions in the form that a replay buffer returns."""
    size = case.batch_size
    images = {name: torch.randint(256, (size, *pixels), dtype=torch.uint8) for name in ("pixels", "next_pixels")}
    entries = {
        **images,
        "action": torch.randint(ACTIONS, (size,)),
        "reward": torch.randn(size).clamp(-1, 1),
        "steps": torch.full((size,), STEPS),
        "terminated": torch.rand(size) < 0.1,
        "weight": torch.rand(size),
    }
    return {name: entry.to(case.device) for name, entry in entries.items()}


class Ours:
    """The loss and the policy of this project."""

    def __init__(self, case: Case, network: QuantileNetwork, target: QuantileNetwork, data: dict[str, Tensor]) -> None:
        alpha, temperature, clip = MUNCHAUSEN
        self.case = case
        self.loss = IQNLoss(
            network,
            discount=DISCOUNT,
            num_taus=TAUS,
            num_target_taus=TAUS,
            num_policy_taus=TAUS,
            munchausen_alpha=alpha,
            munchausen_temperature=temperature,
            munchausen_clip=clip,
            munchausen_log_policy=case.log_policy,
        )
        self.loss.target_value_network.load_state_dict(target.state_dict())
        TargetUpdater(self.loss)  # torchrl warns of a loss without one
        self.parameters = dict(network.named_parameters())
        column = {name: data[name].unsqueeze(-1) for name in ("reward", "terminated", "steps")}
        following = {"pixels": data["next_pixels"], "reward": column["reward"], "terminated": column["terminated"]}
        root = {"pixels": data["pixels"], "action": data["action"], "steps_to_next_obs": column["steps"]}
        entries = {**root, "priority_weight": data["weight"], "next": following}
        self.batch = TensorDict(entries, [case.batch_size], device=case.device)
        self.forward = case.compiled(lambda: self.loss(self.batch)["loss"])
        self.policy = QuantilePolicy(network, num_taus=TAUS)

    def __call__(self) -> Tensor:
        with self.case.autocast():
            return self.forward()


class Floor:
    """The same on plain tensors."""

    def __init__(self, case: Case, network: QuantileNetwork, target: QuantileNetwork, data: dict[str, Tensor]) -> None:
        twin = copy.deepcopy(network)
        self.parameters = dict(twin.named_parameters())
        online = {**self.parameters, **dict(twin.named_buffers())}
        plain = {name: entry.detach().clone() for name, entry in target.state_dict().items()}
        frequencies = cosine_frequencies(COSINES).to(case.device)
        self.case = case
        self.forward = case.compiled(
            lambda: btr_loss(
                online,
                plain,
                frequencies,
                data,
                discount=DISCOUNT,
                num_taus=TAUS,
                munchausen=MUNCHAUSEN,
                log_policy=case.log_policy,
            )
        )

    def __call__(self) -> Tensor:
        with self.case.autocast():
            return self.forward()[0]


def sides(
    case: Case, *, pixels: tuple[int, ...] = PIXELS, width: int = WIDTH, hidden: int = HIDDEN
) -> tuple[Ours, Floor]:
    """Return both sides, with equal weights, buffers and transitions, and a target unlike the online network."""
    torch.manual_seed(0)
    body = ImpalaCNN(pixels, width=width, pool_size=6, spectral_norm="residual")
    network = QuantileNetwork(body, ACTIONS, num_cosines=COSINES, hidden_sizes=(hidden,), dueling=True, noisy=True).to(
        case.device
    )
    if case.channels_last:
        network.to(memory_format=torch.channels_last)
    target = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.mul_(0.9)
    data = batch(case, pixels)
    if case.channels_last:
        for name in ("pixels", "next_pixels"):
            data[name] = data[name].contiguous(memory_format=torch.channels_last)
    return Ours(case, network, target, data), Floor(case, network, target, data)


def difference(case: Case, **sizes: object) -> float:
    """Return the largest difference of loss and gradients in three passes, each relative to its largest entry."""
    ours, floor = sides(case, **sizes)
    worst = 0.0
    for seed in range(3):  # each pass updates the vectors of spectral normalisation
        losses = []
        for side in (ours, floor):
            torch.manual_seed(seed)
            for parameter in side.parameters.values():
                parameter.grad = None
            loss = side()
            loss.backward()
            losses.append(loss.detach())
        pairs = [losses, *([ours.parameters[name].grad, other.grad] for name, other in floor.parameters.items())]
        worst = max(worst, *(float((one - two).abs().max() / two.abs().max()) for one, two in pairs))
    return worst


def training(side: Ours | Floor) -> Callable[[], object]:
    """Return a training step: ``side``, gradient clipping and Adam."""
    parameters = list(side.parameters.values())
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, eps=0.005 / side.case.batch_size)

    def train() -> None:
        optimizer.zero_grad()
        side().backward()
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
        optimizer.step()

    return train


def repeated(function: Callable[[], object], seconds: float, device: str) -> Side:
    """Return a side that repeats a function for ``seconds`` and waits for the device once, at the end."""

    def repeat(count: int) -> Measurement:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(count):
            function()
        if device == "cuda":
            torch.cuda.synchronize()
        return Measurement(count, time.perf_counter() - wall, time.process_time() - cpu)

    repeat(2)
    count = max(1, round(seconds / repeat(1).wall))
    return lambda: repeat(count)


def acting(ours: Ours, seconds: float) -> float:
    """Return the seconds to choose actions for all environments, from pixels on the host to actions on the host."""
    case, size = ours.case, (ENVIRONMENTS, *PIXELS)
    pixels = torch.randint(256, size, dtype=torch.uint8)

    def act() -> Tensor:
        with case.autocast():
            return ours.policy.act(pixels.to(case.device)).cpu()

    side = repeated(act, seconds, case.device)
    return statistics.median(each.wall / each.count for each in (side() for _ in range(3)))


def measure(case: Case, seconds: float, rounds: int) -> tuple[Comparison, dict[str, float]]:
    """Compare ours with the floor; also return the days of a whole run."""
    ours, floor = sides(case)
    name = f"BTR update, batch {case.batch_size}, bonus by the {case.log_policy} network"
    peer, own = (repeated(training(side), seconds, case.device) for side in (floor, ours))
    comparison = compare(name, peer, own, Bar("cost", 1.10), rounds=rounds)
    update, act = 1 / comparison.ours, acting(ours, seconds)
    rounds_of_environments = FRAMES / FRAMES_A_STEP / ENVIRONMENTS
    hours = {"update": update * rounds_of_environments / 3600, "act": act * rounds_of_environments / 3600}
    print(
        f"  {FRAMES:.0e} frames without environments: {hours['update']:.1f} h of updates, {update * 1e3:.1f} ms each, "
        f"and {hours['act']:.1f} h of acting, {act * 1e3:.1f} ms for {ENVIRONMENTS}",
        flush=True,
    )
    return comparison, {"batch_size": case.batch_size, **hours}


def main() -> tuple[list[Comparison], list[dict[str, float]]]:
    parser = arguments(__doc__, seconds=2.0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[32, 256], help="default: 32 and 256")
    parser.add_argument("--log-policy", choices=("online", "target"), default="online", help="network of the bonus")
    for flag in ("--channels-last", "--bf16", "--compile"):
        parser.add_argument(flag, action="store_true", help="on both sides")
    options = parser.parse_args()
    torch.set_num_threads(1)
    variant = {name: getattr(options, name) for name in ("log_policy", "device", "channels_last", "bf16", "compile")}
    found = difference(Case(batch_size=3, log_policy=options.log_policy, device=options.device))
    if not found <= (1e-6 if options.device == "cpu" else 1e-4):  # a GPU selects among convolution algorithms
        raise SystemExit(f"the floor is no floor: loss or gradients differ by {found:.1e}")
    print(f"{variant}\n{HEADER}")
    results = []
    for batch_size in options.batch_size:
        # a large batch takes seconds on a CPU, and its rounds hardly differ
        rounds = min(options.rounds, 3) if options.device == "cpu" and batch_size > 64 else options.rounds
        results.append(measure(Case(batch_size, **variant), options.seconds, rounds))
    comparisons, projections = zip(*results, strict=True)
    return list(comparisons), [{**variant, **projection} for projection in projections]


if __name__ == "__main__":
    comparisons, projections = main()
    finish("btr_update", comparisons, projections=projections)
