"""The task of a configuration: its environments, spaces and observation layout, and the network that fits them."""

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import nn

from tesserl_collectors.evaluation import Evaluation, evaluate_policy
from tesserl_configs import ConfigError, RunConfig
from tesserl_configs.algorithms import declared
from tesserl_environments import ObservationLayout, extend_module_path
from tesserl_environments.making import Environments, Space, StartKind
from tesserl_trainer.algorithms import actor_builder_of, builder_of
from tesserl_trainer.algorithms.agent import Acting, AnyActor, AnyAgent, start_of
from tesserl_trainer.algorithms.environments import make_at_once, make_environments, task_spaces
from tesserl_trainer.networks.bodies import MakeBody, with_body

LEAST_PIXELS_FOR_CHANNELS_LAST = 32
"""Smallest image side for ``channels_last``: from here on it slows no encoder down (docs/results.md)."""

MOST_AT_ONCE = 1_024
"""Most environments that an evaluation steps at once."""


class Task:
    """The task of a configuration.

    Args:
        config: the whole configuration.
        spaces: observation and action space of one environment; None reads them from the first environments made, or
            makes one environment to read them.
        first_environment: total number of environments of the ranks before this one.
    """

    def __init__(
        self, config: RunConfig, spaces: tuple[Space, Space] | None = None, *, first_environment: int = 0
    ) -> None:
        self.config, self.first_environment = config, first_environment
        self._spaces = spaces

    def environments(
        self,
        num_envs: int,
        *,
        evaluation: bool = False,
        groups: bool = False,
        starts: StartKind = "seed",
        max_length: int | None = None,
    ) -> Environments:
        """Make a vector environment; see `make_environments` for the arguments and errors."""
        made = make_environments(
            self.config.environment,
            num_envs,
            evaluation=evaluation,
            groups=groups,
            starts=starts,
            max_length=max_length,
        )
        if self._spaces is None:
            self._spaces = made.single_observation_space, made.single_action_space
        return made

    @property
    def spaces(self) -> tuple[Space, Space]:
        """Observation and action space of one environment."""
        if self._spaces is None:
            self._spaces = task_spaces(self.config.environment)
        return self._spaces

    @property
    def action_space(self) -> Space:
        """Action space of one environment."""
        return self.spaces[1]

    @cached_property
    def layout(self) -> ObservationLayout:
        """Observation keys of the task, with their shapes."""
        environment, (observations, actions) = self.config.environment, self.spaces
        try:
            return ObservationLayout(observations, channels=environment.channels, action_space=actions)
        except ValueError as error:
            raise ConfigError(f"environment.id: {environment.id}: {error}") from error

    def network(self) -> nn.Module:
        """Build the network of the algorithm for this task; ``channels_last`` sets its memory format."""
        extend_module_path(self.config.environment.module_path)  # `nn.body` may be defined there
        network = actor_builder_of(self.config.algorithm).build_network(self)
        if self._channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stubs leave it out
        return network

    @property
    def _channels_last(self) -> bool:
        if self.config.channels_last is not None:
            return self.config.channels_last
        _, height, width = self.layout.shapes.get("pixels", (0, 0, 0))
        return min(height, width) >= LEAST_PIXELS_FOR_CHANNELS_LAST

    def actor(self) -> AnyActor:
        """Build the network with its acting functions, for a process that does not learn."""
        algorithm = self.config.algorithm
        if declared(algorithm).acting is None:
            return self.agent()
        return actor_builder_of(algorithm).build_actor(self, self.network())

    def agent(self, network: nn.Module | None = None) -> AnyAgent:
        """Build the loss, the optimiser and the acting functions around a network; None builds the network too."""
        return builder_of(self.config.algorithm).build_agent(self, network or self.network())

    def evaluation_environments(self, episodes: int | None = None) -> Environments:
        """Make evaluation environments: for this many parallel episodes if the task can, or the periodic ones."""
        settings = self.config.evaluation
        number = settings.episodes if episodes is None else episodes
        at_once = make_at_once(self.config.environment, min(number, MOST_AT_ONCE))
        return self.environments(min(settings.num_envs, number), evaluation=True) if at_once is None else at_once

    def evaluate(
        self, policy: Acting, environments: Environments, *, on_step: Callable[[], None] | None = None
    ) -> Evaluation:
        """Play the episodes of a periodic evaluation, with the same seeds every time."""
        settings = self.config.evaluation
        seeds = range(settings.seed, settings.seed + settings.episodes)
        return self.play(policy, environments, seeds, on_step=on_step)

    def play(
        self,
        policy: Acting,
        environments: Environments,
        seeds: Sequence[int],
        *,
        on_step: Callable[[], None] | None = None,
        on_episode: Callable[[float], None] | None = None,
    ) -> Evaluation:
        """Play one episode for each seed; see `evaluate_policy` for the arguments and errors."""
        return evaluate_policy(
            policy.act,
            environments,
            self.layout,
            seeds,
            max_episode_steps=self.config.evaluation.max_episode_steps,
            device=self.config.device,
            on_start=start_of(policy),
            on_step=on_step,
            on_episode=on_episode,
        )


def build_network(
    config: RunConfig, observation_space: Space, action_space: Space, *, body: MakeBody | None = None
) -> nn.Module:
    """Build the network of a run.

    Args:
        config: the whole configuration.
        observation_space: observation space of one environment.
        action_space: action space of one environment.
        body: see `train`.

    Returns:
        A ``QuantileNetwork`` or an ``ActorCritic``. The parts named in ``nn.freeze`` are frozen, and ``channels_last``
        sets the memory format of the convolutions.

    Raises:
        ConfigError: the configuration and the spaces do not fit together.
    """
    return Task(config if body is None else with_body(config, body), (observation_space, action_space)).network()
