"""``config import``: from a configuration of the seed system (IQN of a racing-game project) to one of ours.

Every function reads the keys of one part, says what it made of them, and leaves the rest to `reason_for`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from tesserl_configs.document import render
from tesserl_configs.errors import ConfigError
from tesserl_configs.importer_network import import_network
from tesserl_configs.importer_reasons import reason_for
from tesserl_configs.importer_source import Note, Source, source_of
from tesserl_configs.loader import name_from, read_document
from tesserl_configs.messages import problems_of
from tesserl_configs.schema import RunConfig


class Import(NamedTuple):
    """What `import_config` returns."""

    text: str
    """Our YAML."""

    notes: list[Note]
    """One note for each key of the file, then one for each thing that is still to be done by hand."""


def import_config(path: str | Path, *, environment_id: str = "ENVIRONMENT") -> Import:
    """Reads a configuration of the seed system and writes ours.

    The seed system's own defaults are written out where they differ from ours; what is not carried over is named.

    Args:
        path: its YAML file.
        environment_id: Gymnasium id of the task to write; the seed system plays one game.

    Returns:
        Our YAML and what became of every key.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or a value is not of the seed system's form.
    """
    path = Path(path)
    document = read_document(path)
    if document.errors:
        raise ConfigError(*(f"{path}:{error.line}: {error}" for error in document.errors))
    source = source_of(document.data)
    try:
        data, algorithm = _converted(source, name_from(path), environment_id)
    except (ArithmeticError, IndexError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {source.last}: not a value as the seed system has it there ({error})") from error
    source.notes += [Note(key, "", reason_for(key, algorithm)) for key in source.leaves if key not in source.taken]
    order = list(source.leaves)
    notes = sorted(dict.fromkeys(source.notes), key=lambda note: order.index(note.key))
    return Import(render(data), [*notes, *_left_to_do(data, environment_id)])


def _converted(source: Source, name: str, environment_id: str) -> tuple[dict[str, Any], str]:
    """Our data, and the algorithm."""
    algorithm = source.take("training.algorithm", "algorithm", "iqn")
    data: dict[str, Any] = {
        "name": str(source.take("training.run_name", "name", name)),
        "total_steps": _last_knot(source),
        "environment": _environment(source, environment_id),
        "nn": import_network(source, algorithm),
        "algorithm": algorithm,
    }
    if algorithm == "iqn":
        batch_size = int(source.take("training.batch_size", "iqn.batch_size", 512))
        if batch_size < 1:
            raise ValueError("it must be at least 1")
        data |= {
            "iqn": _iqn(source, batch_size),
            "optimizer": _optimizer(source, batch_size),
            "replay": _replay(source),
        }
    return data, algorithm


def _left_to_do(data: dict[str, Any], environment_id: str) -> Iterator[Note]:
    if environment_id == "ENVIRONMENT":
        yield Note("to mend: environment.id", "", "write the Gymnasium id of your task there")
    yield Note("to mend: total_steps", "", "the seed system runs until it is stopped; this is where its schedules end")
    try:
        RunConfig.model_validate(data)
    except ValidationError as error:
        for problem in problems_of(error, data):
            yield Note(f"to mend: {problem.path}", "", problem.message)


def _last_knot(source: Source) -> int:
    schedule = source.take("training.lr_schedule", "optimizer.learning_rate", None)
    speed = source.leaves.get("training.global_schedule_speed") or 1
    return (0 if schedule is None else int(schedule[-1][0] * speed)) or 15_000_000


def _environment(source: Source, environment_id: str) -> dict[str, Any]:
    collectors = source.take("performance.gpu_collectors_count", "environment.num_envs", 4, "one environment each")
    return {"id": environment_id, "num_envs": collectors, "vectorization": "async"}


def _iqn(source: Source, batch_size: int) -> dict[str, Any]:
    take = source.take
    num_taus = take("nn.iqn.n", "iqn.num_taus", 8, "and iqn.num_target_taus")
    reuse = "memory.number_times_single_memory_is_used_before_discard"
    update_interval = batch_size // take(reuse, "iqn.update_interval", 32, "batch_size / it: steps for each update")
    discounts = take("training.gamma_schedule", "iqn.discount", [[0, 0.999], [2_500_000, 1.0]], "its last value")
    norm = take(
        "nn.training.clip_grad_norm", "iqn.max_grad_norm", 30, f"/ {batch_size}: its loss is a sum over the batch"
    )
    result = {
        "num_taus": num_taus,
        "num_target_taus": num_taus,
        "num_policy_taus": take("nn.iqn.k", "iqn.num_policy_taus", 32),
        "tau_sampling": "antithetic",
        "num_cosines": take("nn.iqn.embedding_dimension", "iqn.num_cosines", 128),
        "cosine_start": 1,
        "discount": discounts[-1][1],
        "num_steps": take("training.n_steps", "iqn.num_steps", 3),
        "double": take("nn.training.use_ddqn", "iqn.double", True),
        "kappa": take("nn.iqn.kappa", "iqn.kappa", 0.005),
        "target_update": _target_update(source, batch_size),
        "update_interval": max(1, update_interval),
        "batch_size": batch_size,
        "max_grad_norm": norm / batch_size,
        "exploration": _exploration(source),
        "compile": take("nn.training.use_jit", "iqn.compile", True),
    }
    if take("btr.use_munchausen", "iqn.munchausen", False):
        result["munchausen"] = _munchausen(source)
    return result


def _target_update(source: Source, batch_size: int) -> dict[str, Any]:
    key = "nn.training.number_memories_trained_on_between_target_network_updates"
    transitions = source.take(key, "iqn.target_update.interval", 2048, "it / batch_size: updates")
    rate = source.take("nn.training.soft_update_tau", "iqn.target_update.rate", 0.02)
    return {"kind": "soft", "rate": rate, "interval": max(1, transitions // batch_size)}


def _munchausen(source: Source) -> dict[str, Any]:
    temperature = source.take("btr.munchausen_entropy_tau", "iqn.munchausen.temperature", 0.03)
    clip = source.take("btr.munchausen_lo", "iqn.munchausen.clip", -1.0, "* temperature: it clips the log itself")
    alpha = source.take("btr.munchausen_alpha", "iqn.munchausen.alpha", 0.9)
    return {"alpha": alpha, "temperature": temperature, "clip": clip * temperature}


def _exploration(source: Source) -> dict[str, Any]:
    if source.leaves.get("btr.use_noisy_linear"):
        return {"kind": "noisy"}
    default = [[0, 1.0], [50_000, 1.0], [300_000, 0.1], [3_000_000, 0.03]]
    epsilon = _schedule(source, "exploration.epsilon_schedule", "iqn.exploration.epsilon", default)
    return {"kind": "epsilon", "epsilon": epsilon}


def _optimizer(source: Source, batch_size: int) -> dict[str, Any]:
    default = [[0, 1e-3], [3_000_000, 5e-5], [12_000_000, 5e-5], [15_000_000, 1e-5]]
    text = f"/ {batch_size}: its loss is a sum over the batch"
    return {
        "kind": "radam",
        "learning_rate": _schedule(source, "training.lr_schedule", "optimizer.learning_rate", default),
        "eps": source.take("training.adam_epsilon", "optimizer.eps", 1e-4, text) / batch_size,
        "betas": [
            source.take("training.adam_beta1", "optimizer.betas", 0.9),
            source.take("training.adam_beta2", "optimizer.betas", 0.999),
        ],
        "weight_decay": source.take("training.weight_decay_lr_ratio", "optimizer.weight_decay", 0.1),
    }


def _replay(source: Source) -> dict[str, Any]:
    sizes = source.take(
        "memory.memory_size_schedule",
        "replay.capacity",
        [[0, [50_000, 20_000]], [7_000_000, [200_000, 150_000]]],
        "the last size; the first learning start is warmup_steps",
    )
    result = {"kind": "uniform", "capacity": sizes[-1][1][0], "warmup_steps": sizes[0][1][1]}
    alpha = source.take("memory.prio_alpha", "replay.alpha", 0, "0 is kind uniform")
    if alpha:
        beta = source.take("memory.prio_beta", "replay.beta", 1)
        eps = source.take("memory.prio_epsilon", "replay.eps", 2e-3)
        result = {**result, "kind": "prioritized", "alpha": alpha, "beta": beta, "eps": eps}
    return result


def _schedule(source: Source, key: str, target: str, default: list[list[Any]]) -> Any:
    """An exponential schedule of the seed system; a knot of 0 makes it a linear one (there, it fails)."""
    written = source.leaves.get(key) is not None
    speed = source.take("training.global_schedule_speed", "knots of the schedules", 1, "multiplied in")
    knots = [[int(step * speed) if written else step, value] for step, value in source.take(key, target, default)]
    return {"kind": "exponential" if all(value > 0 for _, value in knots) else "linear", "knots": knots}
