"""Load ``initial_weights:`` into a network: it starts from the weights of another run."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from tesserl_configs import ConfigError
from tesserl_configs.initial_weights import PartialWeightsConfig, weights_source
from tesserl_nn_components.state_dict import state_differences
from tesserl_storage.errors import StorageError
from tesserl_trainer.networks.named_parts import modules_of_parts
from tesserl_trainer.networks.parts import named
from tesserl_training.checkpoints.checkpoint import load_networks
from tesserl_training.checkpoints.loading import listed
from tesserl_training.checkpoints.run_checkpoints import Checkpoints
from tesserl_training.checkpoints.run_identity import require_identity

PREFIXES = ("actor_network.", "value_network_params.", "value_network.")
"""Prefixes of a checkpoint's keys: the losses' names of the network that they train. Some checkpoints have none."""


def load_initial_weights(network: nn.Module, weights: str | PartialWeightsConfig) -> None:
    """Load the best network of another run, or parts of it; load the latest if no checkpoint is the best."""
    path, parts = weights_source(weights)
    with named("initial_weights" if not parts else "initial_weights.from", StorageError):
        saved = _of_network(_networks(Path(path)))
    own: Mapping[str, Tensor] = network.state_dict()
    if parts:
        own, saved = _of_parts(network, own, parts), _of_parts(network, saved, parts)
    if differences := state_differences(own, saved):
        if parts:
            raise ConfigError(
                f"initial_weights.parts: {', '.join(parts)} of {path} is not as in nn: {listed(differences)}; use the "
                "same keys of nn for it, or leave the part out"
            )
        raise ConfigError(
            f"initial_weights: the network of {path} is another one than that of nn: {listed(differences)}; use the "
            "same nn block"
        )
    network.load_state_dict(saved, strict=not parts)


def _networks(path: Path) -> dict[str, Tensor]:
    """Return the networks of a checkpoint, or of a run's best checkpoint (its latest if there is no best)."""
    checkpoints = Checkpoints(path)
    if not checkpoints.paths():
        return load_networks(path)
    require_identity(path)
    return checkpoints.load_weights("latest" if checkpoints.best() is None else "best").networks


def _of_network(saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries of the trained network, without prefixes."""
    for prefix in PREFIXES:
        inside = f".{prefix}"
        found = {f".{key}".rpartition(inside)[2]: entry for key, entry in saved.items() if inside in f".{key}"}
        if found:
            return found
    return dict(saved)


def _of_parts(network: nn.Module, state: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Return the state dict entries of the named parts of a network; each part must have weights."""
    modules = modules_of_parts(network)
    for name in names:
        if not _below(network.state_dict(), modules[name]):
            raise ConfigError(f"initial_weights.parts: {name} has no weights here; leave it out")
    return _below(state, [module for name in names for module in modules[name]])


def _below(state: Mapping[str, Tensor], modules: Iterable[str]) -> dict[str, Tensor]:
    prefixes = tuple(f"{module}." for module in modules)
    return {key: entry for key, entry in state.items() if key.startswith(prefixes)}
