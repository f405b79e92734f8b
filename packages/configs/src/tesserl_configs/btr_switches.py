"""Overlays of the ``btr`` switches: the keys that each switch fills in if the file does not set them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from tesserl_configs.base import LEAST, MOST
from tesserl_configs.btr import ImpalaSwitch, MaxPoolSwitch, MunchausenSwitch, NoisySwitch, PrioritizedSwitch
from tesserl_configs.limits import MOST_STEPS

NUM_ENVS = 64
"""Environments of the paper, which makes one update of 256 transitions per step of all of them."""

TARGET_STEPS = 32_000
"""Environment steps between two copies to the target network: 500 updates of the paper."""

MINATAR_CNN = {"channels": [16], "kernel_sizes": [3], "strides": [1], "hidden_sizes": [128]}
"""The network of Young & Tian 2019 (arXiv:1903.03176) for images of 10 x 10."""

Wanted = dict[str, Any]
"""Dotted path -> value; the first is the main key of a switch."""

Fill = Callable[[Any, Any], Any]
"""Function from the setting of a switch and the current data to a value; None fills nothing."""


def at(data: Any, path: str) -> Any:
    """Return the value at a dotted path of plain data; None if there is none."""
    for key in path.split("."):
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def _count(value: Any, default: int) -> int:
    """Convert a number that is valid as a count, such as 8 or 5e5, to an integer; else return the default."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if is_number and 0 < value <= MOST_STEPS and int(value) == value else default


def is_minatar(data: Any) -> bool:
    """Return whether the images are MinAtar's, of 10 x 10."""
    return str(at(data, "environment.id")).startswith("MinAtar/")


def has_only_a_vector(data: Any) -> bool:
    """Return whether a file names an encoder of vectors and none of images."""
    return at(data, "nn.vision") is None and at(data, "nn.vector.kind") not in (None, "none")


def _option(name: str) -> Fill:
    return lambda options, _: getattr(options, name)


def _pool_size(options: Any, data: Any) -> Any:
    """Return 6, or the size that fits MinAtar's images, for encoders with convolutions."""
    sizes = {"cnn": 4, "impala": 2} if is_minatar(data) else {"cnn": 6, "impala": 6}
    fitting = sizes.get(str(at(data, "nn.vision.kind")))
    return fitting if fitting is None or options.size is None else options.size


def _epsilon(options: Any, data: Any) -> Any:
    if options.epsilon is None:
        return _decaying_epsilon(at(data, "total_steps"))
    return options.epsilon if isinstance(options.epsilon, float) else options.epsilon.model_dump(mode="json")


def _vector_layer_norm(_: Any, data: Any) -> Any:
    vector = at(data, "nn.vector")
    has_layers = isinstance(vector, dict) and vector.get("kind") == "mlp" and vector.get("hidden_sizes", (1,))
    return True if has_layers else None


def _num_envs(number: Any, data: Any) -> int:
    return _count(at(data, "environment.num_envs"), NUM_ENVS) if number is True else number


OVERLAYS: dict[str, dict[str, Any | Fill]] = {
    "munchausen": {f"iqn.munchausen.{key}": _option(key) for key in ("alpha", "temperature", "clip", "log_policy")},
    "impala": {"nn.vision.kind": "impala", "nn.vision.width": _option("width")},
    "max_pool": {"nn.vision.pool_size": _pool_size},
    "spectral_norm": {
        "nn.vision.spectral_norm": lambda _, data: {"impala": "residual", "cnn": "all"}.get(
            str(at(data, "nn.vision.kind"))
        )
    },
    "noisy": {"nn.heads.noisy": True, "iqn.exploration.kind": "noisy", "iqn.exploration.epsilon": _epsilon},
    "layer_norm": {"nn.heads.layer_norm": True, "nn.vector.layer_norm": _vector_layer_norm},
    "dueling": {"nn.heads.dueling": True},
    "prioritized": {
        "replay.kind": "prioritized",
        "replay.alpha": _option("alpha"),
        "replay.weight_exponent": _option("weight_exponent"),
    },
    "n_step": {"iqn.num_steps": lambda number, _: 3 if number is True else number},
    "vector_environments": {
        "environment.num_envs": _num_envs,
        "iqn.update_interval": _num_envs,
        "iqn.batch_size": lambda number, data: 4 * _num_envs(number, data),
    },
}
"""Switch -> dotted path -> value, or a function that returns it; ``all`` adds `recipe`."""

OPTIONS = {
    "munchausen": MunchausenSwitch,
    "impala": ImpalaSwitch,
    "max_pool": MaxPoolSwitch,
    "noisy": NoisySwitch,
    "prioritized": PrioritizedSwitch,
}
"""Switch -> class of its options; ``true`` stands for their defaults."""


def overlay(name: str, setting: Any, data: Any) -> Wanted:
    """Return the dotted paths and values that a switch fills into the current data; empty if it has no effect."""
    options = OPTIONS[name]() if setting is True and name in OPTIONS else setting
    values = {path: fill(options, data) if callable(fill) else fill for path, fill in OVERLAYS[name].items()}
    return {path: value for path, value in values.items() if value is not None}


OPTION_KEYS = {"size": "pool_size"}
"""Option of a switch -> name of the key that it sets, where the two differ."""


def recipe(data: Any) -> Wanted:
    """Return the other keys that ``all`` sets; the target interval keeps the published number of environment steps."""
    batch_size, ratio = _count(at(data, "iqn.batch_size"), 32), at(data, "replay.ratio")
    interval: float = _count(at(data, "iqn.update_interval"), 4)  # environment steps from one update to the next
    if isinstance(ratio, int | float) and LEAST <= ratio <= MOST:
        interval = batch_size / ratio
    fractions = {"iqn.num_taus": 8, "iqn.num_target_taus": 8, "iqn.num_policy_taus": 8}
    return {
        **({} if at(data, "iqn.num_fixed_quantiles") else fractions),
        "iqn.discount": 0.997,
        "iqn.max_grad_norm": 10.0,
        "iqn.target_update.kind": "hard",
        "iqn.target_update.interval": max(int(TARGET_STEPS // interval), 1),
        "optimizer.kind": "adam",
        "optimizer.learning_rate": 1e-4,
        "optimizer.eps": 0.005 / batch_size,
        "replay.capacity": 2**20,
        "replay.warmup_steps": 200_000,
    }


def _decaying_epsilon(total_steps: Any) -> Any:
    """Return the epsilon that is added to the noise: from 1 exponentially towards 0.01, then 0 from half of the run on.

    The published run has 50 million steps and a time constant of 2 million, a 25th of them.
    """
    constant = _count(total_steps, 0) / 25
    if constant < 4:
        return 0.0
    knots = [
        [round(times * constant), round(0.01 + 0.99 * math.exp(-times), 4)] for times in (0, 0.5, 1, 1.5, 2, 3, 4, 6)
    ]
    half = round(12.5 * constant)
    return {"kind": "linear", "knots": [*knots, [half - 1, 0.01], [half, 0.0]]}
