"""``initial_weights:`` -> a network that begins where another run has ended."""

from pathlib import Path

from torch import Tensor, nn

from tesserl_configs import ConfigError
from tesserl_nn_components.state_dict import state_differences
from tesserl_trainer.checkpoints.checkpoint import CheckpointError, load_networks
from tesserl_trainer.checkpoints.loading import listed
from tesserl_trainer.checkpoints.run_checkpoints import Checkpoints
from tesserl_trainer.checkpoints.run_identity import require_identity
from tesserl_trainer.networks.parts import named


def load_initial_weights(network: nn.Module, path: Path) -> None:
    """Load the network of another run.

    Args:
        network: what ``build_network`` returned.
        path: of a run, whose best checkpoint is taken (where there is none, its latest), or of a checkpoint.

    Raises:
        ConfigError: there is no checkpoint, or its network is another one.
    """
    with named("initial_weights", CheckpointError):
        saved = _networks(path)
    inside = "actor_network."  # as a loss calls the network that it trains
    state = {key.rpartition(inside)[2]: entry for key, entry in saved.items() if inside in key} or saved
    if differences := state_differences(network.state_dict(), state):
        raise ConfigError(
            f"initial_weights: the network of {path} is another one than that of nn: {listed(differences)}; use the "
            "same nn block"
        )
    network.load_state_dict(state)


def _networks(path: Path) -> dict[str, Tensor]:
    """Return the best networks of a run, its latest ones if none is the best, or those of a checkpoint."""
    checkpoints = Checkpoints(path)
    if not checkpoints.paths():
        return load_networks(path)
    require_identity(path)
    return checkpoints.load_weights("latest" if checkpoints.best() is None else "best").networks
