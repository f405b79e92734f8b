"""``initial_weights:`` -> a network that begins where another run has ended."""

from pathlib import Path

from torch import nn

from tesserl_configs import ConfigError
from tesserl_trainer.run.checkpoint import CheckpointError, Checkpoints, load_networks
from tesserl_trainer.wiring.bodies import named


def load_initial_weights(network: nn.Module, path: Path) -> None:
    """Loads what another run has learned.

    Args:
        network: what ``build_network`` returned.
        path: of a run, whose best checkpoint is taken (where there is none, its latest), or of a checkpoint.

    Raises:
        ConfigError: there is no checkpoint, or its network is another one.
    """
    checkpoints = Checkpoints(path)
    with named("initial_weights", CheckpointError):
        saved = load_networks(checkpoints.best() or checkpoints.latest() or path)
    own, inside = set(network.state_dict()), "actor_network."  # as a loss calls the network that it trains
    state = {key.rpartition(inside)[2]: entry for key, entry in saved.items() if inside in key} or saved
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ConfigError(
            f"initial_weights: the network of {path} is another one than that of nn: {len(set(state) ^ own)} names "
            f"differ; use the same nn block ({str(error).splitlines()[-1].strip()})"
        ) from error
