"""Resolve ``precision: auto``: time the body in both number formats and keep the faster one."""

import time
from statistics import median
from typing import cast

import torch
from torch import Tensor, nn

from tesserl_configs import RunConfig
from tesserl_configs.iqn import IQNConfig
from tesserl_configs.ppo import PPOConfig
from tesserl_configs.preferences import PreferenceOptions
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.machine import device_of
from tesserl_trainer.networks.programs import observation_specs, random_inputs

FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ROUNDS, WARMUP = 5, 2
"""Measured passes of each format, and warm-up passes before them."""

LEAST_GAIN = 0.95
"""Largest time of bfloat16 relative to float32 at which bfloat16 is chosen: its sums are less exact."""


def faster_precision(config: RunConfig) -> tuple[str, str]:
    """Time the body forward and backward in each format; return the faster format and a line with the times."""
    task, device = Task(config), device_of(config.device)
    body = task.network().to(device).get_submodule("body")
    batch_size = _batch_size(config)
    inputs = _inputs(task, body, batch_size, device)
    seconds: dict[str, list[float]] = {name: [] for name in FORMATS}
    for _ in range(WARMUP + ROUNDS):
        for name, dtype in FORMATS.items():
            seconds[name].append(_seconds_of_pass(body, inputs, dtype))
    ratio = median(seconds["bfloat16"][WARMUP:]) / median(seconds["float32"][WARMUP:])
    chosen = "bfloat16" if ratio < LEAST_GAIN else "float32"
    said = f"a pass of the body in bfloat16 takes {ratio:.2f} of the time in float32 (batches of {batch_size})"
    return chosen, f"{config.algorithm}.precision: {chosen}; {said}"


def _batch_size(config: RunConfig) -> int:
    """Return the observations per update, at most 1,024; 256 if the number depends on episode lengths."""
    match config.options:
        case IQNConfig() | PreferenceOptions() as options:
            return min(options.batch_size, 1_024)
        case PPOConfig() as ppo:
            return min(config.environment.num_envs * ppo.num_steps // ppo.num_minibatches, 1_024)
        case _:
            return 256


def _inputs(task: Task, body: nn.Module, batch_size: int, device: torch.device) -> list[Tensor]:
    """Return a batch for a body: random observations, and the initial state of a body with memory."""
    specs = observation_specs(task.layout)
    drawn = random_inputs(specs, batch_size, 1, torch.Generator().manual_seed(0))
    inputs = [drawn[key] for key in cast("list[str]", body.in_keys)]  # leaves out the action mask
    if getattr(body, "state_keys", ()):
        states = body.initial_state(batch_size)  # type: ignore[operator]  # a body with state_keys has this method
        inputs += [torch.zeros(batch_size, 1, dtype=torch.bool), *states]
    return [each.to(device) for each in inputs]


def _seconds_of_pass(body: nn.Module, inputs: list[Tensor], dtype: torch.dtype) -> float:
    """Time a forward and a backward pass; reading a number from the result waits for the device."""
    begin = time.perf_counter()
    with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        outputs = body(*inputs)
    features = outputs[0] if isinstance(outputs, tuple) else outputs
    if features.requires_grad:
        features.float().sum().backward()
    float(features.detach().flatten()[0])
    for parameter in body.parameters():
        if parameter.grad is not None:
            float(parameter.grad.flatten()[0])
            break
    return time.perf_counter() - begin
