"""Prepare batches of transitions for the loss of quantile networks: clocks and random crops."""

from collections.abc import Callable

from tensordict import TensorDictBase

from tesserl_configs.iqn import IQNConfig
from tesserl_iqn import end_at_horizon, sample_clock
from tesserl_nn_components import random_crop
from tesserl_trainer.algorithms.agent import Forward

Preparation = Callable[[TensorDictBase], None]
"""Replace entries of a batch."""


def preparing(forward: Forward, steps: list[Preparation]) -> Forward:
    """Return ``forward`` on changed copies of its batches; the batch drawn from the buffer stays as it is.

    Args:
        forward: reads a batch and writes its ``td_error`` into it.
        steps: each replaces entries of a shallow copy of the batch.
    """
    if not steps:
        return forward

    def prepare_and_forward(batch: TensorDictBase) -> TensorDictBase:
        prepared = batch.copy()
        for step in steps:
            step(prepared)
        result = forward(prepared)
        batch["td_error"] = prepared["td_error"]
        return result

    return prepare_and_forward


def preparations(iqn: IQNConfig) -> list[Preparation]:
    """Return what changes a batch before the loss reads it."""
    clock, padding = clock_of(iqn), iqn.random_crop
    steps = [] if clock is None else [clock]
    if padding is not None:
        steps.append(lambda batch: crop(batch, padding))
    return steps


def clock_of(iqn: IQNConfig) -> Preparation | None:
    """Return what sets the clocks of a batch; None without a fixed horizon."""
    horizon = iqn.fixed_horizon
    return None if horizon is None else lambda batch: set_clock(batch, horizon.steps, horizon.start_fraction)


def crop(batch: TensorDictBase, padding: int) -> None:
    """Shifts images at random, those of a transition's two ends by draws of their own."""
    for key in ("pixels", ("next", "pixels")):
        batch[key] = random_crop(batch[key], padding)


def set_clock(batch: TensorDictBase, horizon: int, start_fraction: float) -> None:
    """Put each transition at a random time of the horizon; its clock is the first feature of ``observation``.

    Args:
        batch: ``[B]``, with ``partial_returns``, as ``NStepWindow`` keeps them.
        horizon: steps that a value looks ahead.
        start_fraction: probability of clock 0 beside its share of the rest.
    """
    partial_returns = batch["partial_returns"]
    clock = sample_clock(len(batch), horizon, start_fraction=start_fraction, device=partial_returns.device)
    reward, steps, terminated, later = end_at_horizon(
        partial_returns,
        batch["steps_to_next_obs"].squeeze(-1),
        batch["next", "terminated"].squeeze(-1),
        clock,
        horizon,
    )
    for key, value in (("observation", clock), (("next", "observation"), later)):
        observation = batch[key].clone()
        observation[:, 0] = value / horizon
        batch[key] = observation
    for key, value in (
        (("next", "reward"), reward),
        (("next", "terminated"), terminated),
        ("steps_to_next_obs", steps),
    ):
        batch[key] = value.unsqueeze(-1)
