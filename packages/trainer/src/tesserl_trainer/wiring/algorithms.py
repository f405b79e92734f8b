"""``algorithm:`` and a network -> what acts and what learns. Which algorithm is built is decided here."""

from collections.abc import Callable

from torch import nn

from tesserl_actor_critic import ActorCritic
from tesserl_configs import RunConfig
from tesserl_iqn import QuantileNetwork
from tesserl_trainer.wiring.grpo import build_grpo
from tesserl_trainer.wiring.iqn import build_iqn
from tesserl_trainer.wiring.learning import Algorithm, device_of
from tesserl_trainer.wiring.ppo import build_ppo
from tesserl_trainer.wiring.preferences import build_preferences


def build_algorithm(config: RunConfig, network: nn.Module, fresh: Callable[[], nn.Module] | None = None) -> Algorithm:
    """Builds everything that surrounds a network.

    Args:
        config: the whole configuration.
        network: what ``build_network`` returned; it is moved to the device.
        fresh: makes another network like it, for the resets of a training run; None where nothing is trained.

    Raises:
        ConfigError: the device is not there, or nothing is left to learn.
        TypeError: the network is not that of the algorithm.
    """
    network.to(device_of(config.device))
    match config.algorithm, network:
        case "iqn", QuantileNetwork():
            return build_iqn(config, network, fresh)
        case "ppo", ActorCritic():
            return build_ppo(config, network)
        case "grpo", ActorCritic():
            return build_grpo(config, network)
        case "dpo" | "cpl", ActorCritic():
            return build_preferences(config, network)
    raise TypeError(f"{config.algorithm} does not train a {type(network).__name__}; build it with build_network")
