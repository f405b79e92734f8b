"""Return the keys that each ``btr`` switch fills in, from its setting and the data of the file so far.

| switch | fills |
|---|---|
| munchausen | ``iqn.munchausen``: alpha 0.9, temperature 0.03, clip -1, log_policy online |
| impala | ``nn.vision``: kind impala, width 2 |
| max_pool | ``nn.vision.pool_size``: 6 |
| spectral_norm | ``nn.vision.spectral_norm``: residual of kind impala, all of kind cnn |
| noisy | ``nn.heads.noisy``; ``iqn.exploration``: kind noisy, epsilon off at half of ``total_steps`` |
| layer_norm | ``nn.heads.layer_norm``, and ``nn.vector.layer_norm`` where there is a perceptron |
| dueling | ``nn.heads.dueling`` |
| prioritized | ``replay``: kind prioritized, alpha 0.2, weight_exponent alpha |
| n_step | ``iqn.num_steps``: 3 |
| vector_environments | ``environment.num_envs``: 64; ``iqn.update_interval``: 64; ``iqn.batch_size``: 256 |
| all | the rest of the recipe, see `recipe` |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tesserl_configs.base import LEAST, MOST
from tesserl_configs.btr import ImpalaSwitch, MaxPoolSwitch, MunchausenSwitch, NoisySwitch, PrioritizedSwitch
from tesserl_configs.limits import MOST_STEPS

NUM_ENVS = 64
"""Environments of the paper, with one update of 256 transitions for each step of all of them."""

TARGET_STEPS = 32_000
"""Environment steps from one copy to the target network to the next: 500 updates of the paper."""

MINATAR_CNN = {"channels": [16], "kernel_sizes": [3], "strides": [1], "hidden_sizes": [128]}
"""The network of Young & Tian 2019 (arXiv:1903.03176) for images of 10 x 10."""

Wanted = dict[str, Any]
"""Dotted path -> value; the first one is what a switch is for."""


def at(data: Any, path: str) -> Any:
    """Return the value at a dotted path of plain data; None if there is none."""
    for key in path.split("."):
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def _options(setting: Any, block: type[Any]) -> Any:
    return block() if setting is True else setting


def _count(value: Any, default: int) -> int:
    """Convert a number that the schema takes for a count, such as 8 or 5e5, into an integer."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if is_number and 0 < value <= MOST_STEPS and int(value) == value else default


def is_minatar(data: Any) -> bool:
    """Return whether the images are MinAtar's, of 10 x 10."""
    return str(at(data, "environment.id")).startswith("MinAtar/")


def has_only_a_vector(data: Any) -> bool:
    """Return whether a file names an encoder of vectors and none of images."""
    return at(data, "nn.vision") is None and at(data, "nn.vector.kind") not in (None, "none")


def _munchausen(setting: Any, _: Any) -> Wanted:
    options = _options(setting, MunchausenSwitch)
    return {f"iqn.munchausen.{key}": getattr(options, key) for key in ("alpha", "temperature", "clip", "log_policy")}


def _impala(setting: Any, _: Any) -> Wanted:
    return {"nn.vision.kind": "impala", "nn.vision.width": _options(setting, ImpalaSwitch).width}


def _max_pool(setting: Any, data: Any) -> Wanted:
    kind, size = str(at(data, "nn.vision.kind")), _options(setting, MaxPoolSwitch).size
    if kind not in ("cnn", "impala"):
        return {}
    fitting = {"cnn": 4, "impala": 2}[kind] if is_minatar(data) else 6
    return {"nn.vision.pool_size": fitting if size is None else size}


def _spectral_norm(_: Any, data: Any) -> Wanted:
    normalized = {"impala": "residual", "cnn": "all"}.get(str(at(data, "nn.vision.kind")))
    return {"nn.vision.spectral_norm": normalized} if normalized else {}


def _noisy(setting: Any, data: Any) -> Wanted:
    epsilon = _options(setting, NoisySwitch).epsilon
    if epsilon is None:
        chosen: Any = _decaying_epsilon(at(data, "total_steps"))
    else:
        chosen = epsilon if isinstance(epsilon, float) else epsilon.model_dump(mode="json")
    return {"nn.heads.noisy": True, "iqn.exploration.kind": "noisy", "iqn.exploration.epsilon": chosen}


def _layer_norm(_: Any, data: Any) -> Wanted:
    vector = at(data, "nn.vector")
    has_layers = isinstance(vector, dict) and vector.get("kind") == "mlp" and vector.get("hidden_sizes", (1,))
    return {"nn.heads.layer_norm": True, **({"nn.vector.layer_norm": True} if has_layers else {})}


def _dueling(*_: Any) -> Wanted:
    return {"nn.heads.dueling": True}


def _prioritized(setting: Any, _: Any) -> Wanted:
    options = _options(setting, PrioritizedSwitch).model_dump()
    return {"replay.kind": "prioritized", **{f"replay.{key}": value for key, value in options.items()}}


def _n_step(setting: Any, _: Any) -> Wanted:
    return {"iqn.num_steps": 3 if setting is True else setting}


def _vector_environments(setting: Any, data: Any) -> Wanted:
    number = _count(at(data, "environment.num_envs"), NUM_ENVS) if setting is True else setting
    return {"environment.num_envs": number, "iqn.update_interval": number, "iqn.batch_size": 4 * number}


WANTED = {
    "munchausen": _munchausen,
    "impala": _impala,
    "max_pool": _max_pool,
    "spectral_norm": _spectral_norm,
    "noisy": _noisy,
    "layer_norm": _layer_norm,
    "dueling": _dueling,
    "prioritized": _prioritized,
    "n_step": _n_step,
    "vector_environments": _vector_environments,
}
"""Switch -> what it asks for, of its setting and the data so far; nothing where it cannot do anything."""

OPTION_KEYS = {"size": "pool_size"}
"""Options whose key elsewhere has another name."""


def recipe(data: Any) -> Wanted:
    """Return the keys that ``all`` sets beside the switches; targets are copied as often in steps as published."""
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
    """Return epsilon beside the noise: exponentially from 1 towards 0.01, and 0 from half of the run on.

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
