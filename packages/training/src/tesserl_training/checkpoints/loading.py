"""Load checkpoints into networks and optimisers; one error lists all mismatches."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from tesserl_nn_components.state_dict import state_differences
from tesserl_storage.errors import StorageError
from tesserl_storage.fields import Fields

SHOWN = 4
"""Most differences that a message names; it counts the others."""


def load_module(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict; its names, shapes and kinds of number must match those of the module.

    Args:
        module: changed in place if everything matches.
        state: the saved state dict.
        source: origin of the state dict, for messages.

    Raises:
        StorageError: a name, a shape or a kind of number differs.
    """
    require_state(module, state, source)
    module.load_state_dict(dict(state))


def require_state(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Refuse a state dict whose names, shapes or kinds of number do not match a module; see ``load_module``."""
    if differences := state_differences(module.state_dict(), state):
        raise StorageError(
            f"{source}: its networks are not those of this configuration and task: {listed(differences)}; leave out "
            "what changes them (--set), or name the checkpoint of another run"
        )


def require_optimizer_state(optimizer: Optimizer, saved: Any, source: str) -> None:
    """Refuse an optimiser state of other parameters or other settings."""
    fields = Fields(saved, source)
    own, groups = optimizer.state_dict()["param_groups"], fields.items("param_groups")
    if len(groups) != len(own):
        raise StorageError(f"{source}: expected {len(own)} groups of parameters, got {len(groups)}")
    differences = []
    for number, (mine, group) in enumerate(zip(own, groups, strict=True)):
        theirs = Fields(group, f"{source}.param_groups.{number}")
        changing = {"lr", "initial_lr"}  # set by the schedule before the next step
        for name in sorted(changing & mine.keys()):
            if not isinstance(theirs.take(name), Tensor):  # a CUDA graph reads a tensor
                theirs.number(name, least=0.0)
        saved_values = theirs.value
        names = [name for name in mine if name not in changing and _plain(mine[name]) != _plain(saved_values.get(name))]
        differences += [f"{name} of group {number}: {saved_values.get(name)}, expected {mine[name]}" for name in names]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, entries in fields.fields("state").value.items():
        place = Fields(entries, f"{source}.state.{index}").value
        if not isinstance(index, int) or not 0 <= index < len(parameters):
            differences.append(f"state of parameter {index}, of which there are {len(parameters)}")
            continue
        shape = parameters[index].shape
        differences += [
            f"{name} of parameter {index}: {tuple(value.shape)}, expected {tuple(shape)}"
            for name, value in place.items()
            if isinstance(value, Tensor) and value.shape not in ((), shape)
        ]
    if differences:
        raise StorageError(f"{source}: the optimiser's state is that of another one: {listed(differences)}")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def listed(differences: Sequence[str]) -> str:
    """Join the first differences to one line; count the others."""
    more = f"; and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
    return "; ".join(differences[:SHOWN]) + more
