"""The state of several ranks in one checkpoint: rank 0's state, and the differences of the others from it."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from tesserl_ranks.failures import RankError
from tesserl_ranks.group import Ranks
from tesserl_storage.errors import StorageError
from tesserl_storage.fields import Fields
from tesserl_storage.state import join_state, split_state

EQUAL = ("networks", "optimizer")
"""Entries of a state that are the same on all ranks."""

NOISE = (".epsilon_in", ".epsilon_out")
"""Suffixes of tensors that differ between ranks: each rank draws its own noise of `NoisyLinear`."""


Leaves = dict[tuple[str, ...], Any]
"""Values of nested mappings by their paths of keys."""


def state_of_all(ranks: Ranks, state: Mapping[str, Any], step: int) -> dict[str, Any]:
    """Return the state of all ranks for a checkpoint.

    Args:
        ranks: ranks that train together.
        state: state of this rank.
        step: environment steps so far, for messages.

    Returns:
        The state of rank 0 with an additional entry ``ranks``: their number, the digests of their weights, and the
        values in which ranks 1, 2, ... differ from rank 0. With one rank, the unchanged state.

    Raises:
        RankError: the weights or the optimisers are not the same on all ranks.
    """
    if ranks.number == 1:
        return dict(state)
    _require_equal(every := ranks.gather(_equal_digests(state)), step)
    leaves = _own_leaves(state)
    digests = {path: digest_of(value) for path, value in leaves.items()}
    first = ranks.gather(digests)[0]
    own = {
        "changed": [[list(path), _on_cpu(value)] for path, value in leaves.items() if digests[path] != first.get(path)],
        "removed": [list(path) for path in first if path not in digests],
    }
    record = {
        "number": ranks.number,
        "weights": [each["networks"] for each in every],
        "generator": ranks.generator,
        "others": ranks.gather(own)[1:],
    }
    return {**state, "ranks": record}


def started_with(number: int) -> str:
    """Return the command that starts a number of ranks, for messages."""
    if number == 1:
        return "start it without torchrun"
    return f"start it with {number} ranks: torchrun --nproc-per-node {number}"


def state_of_rank(
    ranks: Ranks, saved: Mapping[str, Any], where: str | Path, *, remedy: Callable[[int], str] = started_with
) -> dict[str, Any]:
    """Return the state from which one rank continues.

    Args:
        ranks: ranks that continue; the generator of `Ranks.agreed` is restored.
        saved: complete state of a checkpoint.
        where: name of the checkpoint, for messages.
        remedy: returns advice for continuing with another number of ranks.

    Raises:
        StorageError: another number of ranks wrote the checkpoint.
    """
    fields = Fields(saved["ranks"], f"{where}: ranks") if "ranks" in saved else None
    number = 1 if fields is None else fields.integer("number", least=2)
    if number != ranks.number:
        raise StorageError(
            f"{where}: {_processes(number)} wrote it and {_processes(ranks.number)} cannot continue it exactly; "
            + remedy(number)
        )
    if fields is None:
        return dict(saved)
    ranks.generator = fields.tensor("generator", (None,), torch.uint8)
    state = {key: value for key, value in saved.items() if key != "ranks"}
    if ranks.rank == 0:
        return state
    others = fields.items("others")
    if len(others) != number - 1:
        raise StorageError(f"{where}: ranks: expected the state of {number - 1} other ranks, got {len(others)}")
    own = Fields(others[ranks.rank - 1], f"{where}: ranks.others")
    leaves = _own_leaves(state)
    for path in own.items("removed"):
        leaves.pop(tuple(path), None)
    leaves |= {tuple(path): value for path, value in own.items("changed")}
    joined = _nested(leaves)
    networks = {**state["networks"], **joined.get("networks", {})}
    return {**joined, "networks": networks, "optimizer": state["optimizer"]}


def digest_of(value: Any) -> str:
    """Return the SHA-256 of nested data with tensors."""
    document, tensors = split_state(value)
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def _on_cpu(value: Any) -> Any:
    """Return nested data with its tensors on the CPU, because rank 0 may not see other ranks' GPUs."""
    document, tensors = split_state(value)
    return join_state(document, {name: tensor.cpu() for name, tensor in tensors.items()})


def _equal_digests(state: Mapping[str, Any]) -> dict[str, str]:
    """Return the digests of the entries that must be equal on all ranks, without the noise of networks."""
    weights = {name: value for name, value in state["networks"].items() if not name.endswith(NOISE)}
    return {"networks": digest_of(weights), "optimizer": digest_of(state["optimizer"])}


def _own_leaves(state: Mapping[str, Any]) -> Leaves:
    """Return the values of a state that may differ between ranks."""
    noise = {name: value for name, value in state["networks"].items() if name.endswith(NOISE)}
    own = {key: value for key, value in state.items() if key not in EQUAL}
    return _leaves({**own, "networks": noise} if noise else own)


def _leaves(value: Mapping[str, Any], path: tuple[str, ...] = ()) -> Leaves:
    """Return the leaves of nested mappings; a mapping that is empty or has keys other than strings is a leaf."""
    found: Leaves = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item and all(isinstance(name, str) for name in item):
            found |= _leaves(item, (*path, key))
        else:
            found |= {(*path, key): item}
    return found


def _nested(leaves: Leaves) -> dict[str, Any]:
    """Invert `_leaves`."""
    state: dict[str, Any] = {}
    for path, value in leaves.items():
        place = state
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = value
    return state


def _require_equal(every: list[dict[str, str]], step: int) -> None:
    """Reject ranks whose weights or optimisers differ from those of rank 0."""
    for key in EQUAL:
        differing = [str(rank) for rank, digests in enumerate(every) if digests[key] != every[0][key]]
        if differing:
            found = ", ".join(f"{rank}: {digests[key][:12]}" for rank, digests in enumerate(every))
            raise RankError(
                f"ranks: at step {step:,} the {key} of rank {', '.join(differing)} are not those of rank 0 "
                f"(SHA-256 {found}), so no checkpoint was written; continue from the one before, and use the same "
                "machines, releases and files for all ranks"
            )


def _processes(number: int) -> str:
    return "one process" if number == 1 else f"{number} ranks"
