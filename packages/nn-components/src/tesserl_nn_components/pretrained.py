"""Save a trained network or a part of it, and initialise another network from it.

A saved network is a directory of three files, named as on the Hugging Face hub: ``model.safetensors`` (all parameters
and buffers, including data statistics), ``config.json`` (the arguments that build the network) and ``README.md`` (a
model card). Loading runs no code from these files and unpickles nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tesserl_nn_components.__about__ import __version__
from tesserl_nn_components.state_dict import state_differences

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
FORMAT_VERSION = 1

Module = TypeVar("Module", bound=nn.Module)


def save_pretrained(
    module: nn.Module, directory: str | Path, *, config: Mapping[str, Any], description: str = ""
) -> Path:
    """Save a network and the configuration that builds it.

    An existing model card is kept. Tensors that share memory are each stored under their own name, so that a network
    that does not share them can load them.

    Args:
        module: network, body, encoder or head.
        directory: created if it does not exist.
        config: JSON values from which the network is built, usually the keyword arguments of its class; tuples become
            lists.
        description: text for the model card: task, data, licence, results.

    Returns:
        The directory.

    Raises:
        TypeError: if an entry of ``config`` is not a JSON value, or the state dict contains anything but tensors.
        ValueError: if the network is on the meta device and has no values.
    """
    plain = {key: _as_json(value, key) for key, value in config.items()}
    # Clones: safetensors refuses tensors that share memory
    tensors = {
        name: value.detach().to("cpu", copy=True).contiguous() for name, value in _state_of(module, "save").items()
    }
    kind = f"{type(module).__module__}.{type(module).__qualname__}"
    record = {"format_version": FORMAT_VERSION, "module": kind, "tesserl_nn_components": __version__, "config": plain}
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / f"{WEIGHTS}.partial"
    partial.touch()
    mode = partial.stat().st_mode & 0o777
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.chmod(mode)  # safetensors creates files that only the owner can read
    partial.replace(directory / WEIGHTS)  # an interrupted save keeps the old weights
    (directory / CONFIG).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if not (directory / CARD).exists():
        (directory / CARD).write_text(_model_card(module, record, description), encoding="utf-8")
    return directory


def from_pretrained(build: Callable[..., Module], directory: str | Path) -> Module:
    """Build a network from a saved configuration and load the saved weights.

    Args:
        build: called with the saved ``config`` as keyword arguments: the network's class, or a function.
        directory: written by :func:`save_pretrained`, or returned by :func:`pull_from_hub`.

    Returns:
        The network that ``build`` made, in training mode unless ``build`` changed that.

    Raises:
        FileNotFoundError: if the directory lacks a file.
        TypeError: if ``build`` does not take this configuration.
        ValueError: if the weights do not fit, see :func:`load_pretrained`.
    """
    config = read_config(directory)
    try:
        module = build(**config)
    except TypeError as error:
        name = getattr(build, "__qualname__", repr(build))
        raise TypeError(
            f"{name} must take the keyword arguments of {Path(directory) / CONFIG}, {sorted(config)}: {error}"
        ) from error
    load_pretrained(module, directory)
    return module


def load_pretrained(module: nn.Module, directory: str | Path, *, part: str = "") -> None:
    """Load the weights of a saved network, or of a part of it, into a network or a part.

    All names and shapes must match; otherwise nothing changes. To load a single part, name it on both sides:
    ``load_pretrained(network.body.vision, directory, part="vision")``. Values are converted to the dtype and device of
    ``module``. Frozen parameters stay frozen.

    Args:
        module: network or part, changed in place.
        directory: written by :func:`save_pretrained`, or returned by :func:`pull_from_hub`.
        part: dotted name of a part of the saved network; empty for the whole network.

    Raises:
        FileNotFoundError: if the directory lacks a file.
        TypeError: if the state of ``module`` contains anything but tensors.
        ValueError: if a file is damaged or of a later format, if ``module`` is on the meta device, or if names, shapes
            or kinds of number differ; the message lists all differences.
    """
    read_config(directory)
    path = saved_file(directory, WEIGHTS)
    try:
        saved = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} must be a safetensors file, got {error}; save or download it again") from error
    if part:
        prefix = f"{part}."
        parts = sorted({name.partition(".")[0] for name in saved})
        saved = {name.removeprefix(prefix): value for name, value in saved.items() if name.startswith(prefix)}
        if not saved:
            raise ValueError(f"part must be a part of the network in {path}, got {part!r}; its parts are {parts}")
    problems = state_differences(_state_of(module, "load into"), saved)
    if problems:
        source = f'part "{part}" of {path}' if part else str(path)
        raise ValueError(
            f"{source} does not fit {type(module).__name__}; build it as {CONFIG} beside the file says, or load the "
            "parts that fit one by one (part=):\n  " + "\n  ".join(problems)
        )
    module.load_state_dict(saved)


def read_config(directory: str | Path) -> dict[str, Any]:
    """Return the ``config`` of a saved network.

    Raises:
        FileNotFoundError: if the directory has no configuration.
        ValueError: if it is damaged, or of a later format than this version reads.
    """
    path = saved_file(directory, CONFIG)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version, config = record["format_version"], record["config"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} must be as save_pretrained writes it, got {error!r}") from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"format_version of {path} must be {FORMAT_VERSION}, got {version}; "
            f"install the release of tesserl-nn-components that wrote it, {record.get('tesserl_nn_components')}"
        )
    return config


def saved_file(directory: str | Path, name: str) -> Path:
    """Return the path of a file of a saved network."""
    path = Path(directory) / name
    if not path.is_file():
        raise FileNotFoundError(f"a saved network must have {CONFIG} and {WEIGHTS}, got no {path}")
    return path


def _state_of(module: nn.Module, action: str) -> dict[str, Tensor]:
    """Return the state dict; reject entries that are not tensors or have no values."""
    state = module.state_dict()
    foreign = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if foreign:
        raise TypeError(
            f"cannot {action} {type(module).__name__}: its state must be tensors, got {foreign}; "
            "a safetensors file holds nothing else"
        )
    empty = [name for name, value in state.items() if value.is_meta]
    if empty:
        raise ValueError(
            f"cannot {action} {type(module).__name__}: {len(empty)} tensors are on the meta device and have no values, "
            f"{empty[0]} the first; move it with to_empty(device=...) or build it on a real device"
        )
    return state


def _as_json(value: Any, name: str) -> Any:
    """Return a value as JSON data; reject values that JSON would change."""
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, list | tuple):
        return [_as_json(entry, f"{name}[{index}]") for index, entry in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _as_json(entry, f"{name}.{key}") for key, entry in value.items()}
    raise TypeError(
        f"config must hold JSON values (None, bool, int, finite float, str, list, dict with str keys), got {name}="
        f"{value!r}; save what it is made from, and make it in the function given to from_pretrained"
    )


def _model_card(module: nn.Module, record: Mapping[str, Any], description: str) -> str:
    """Return the text of the model card, in the hub's format."""
    counts = {"all": sum(parameter.numel() for parameter in module.parameters())}
    counts |= {name: sum(p.numel() for p in child.parameters()) for name, child in module.named_children()}
    body = ""
    if hasattr(module, "in_keys") and hasattr(module, "out_features"):
        body = f"; inputs {', '.join(module.in_keys)}, {module.out_features} features out"  # type: ignore[arg-type]
    lines = [
        "---",
        "library_name: pytorch",
        "tags: [pytorch, reinforcement-learning, tesserl]",
        "---",
        f"# {type(module).__name__}",
        "",
        *([description.strip(), ""] if description.strip() else []),
        f"`{record['module']}`, saved by tesserl-nn-components {__version__}: {len(module.state_dict())} "
        f"tensors{body}.",
        "",
        "| part | parameters |",
        "|---|---|",
        *(f"| {name} | {count:,} |" for name, count in counts.items()),
        "",
        "```python",
        "from tesserl_nn_components import from_pretrained, pull_from_hub",
        "",
        f"# build: the network's class, or a function, that takes the keyword arguments in {CONFIG}",
        'network = from_pretrained(build, pull_from_hub("OWNER/NAME"))',
        "```",
        "",
    ]
    return "\n".join(lines)
