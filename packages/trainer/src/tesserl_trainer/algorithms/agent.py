"""An agent: a network with its loss, its optimiser and its acting functions; and helpers of all algorithms."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.optim import Optimizer

from tesserl_collectors.collector import Act, Start
from tesserl_collectors.transfers import Uploads
from tesserl_configs import RunConfig
from tesserl_configs.graph_rules import Graphed
from tesserl_configs.policy import Precision
from tesserl_nn_components import RunningNormalizer
from tesserl_ranks.group import ALONE, Ranks
from tesserl_trainer.algorithms.optimizers import learning_rate_schedule, optimizer_of
from tesserl_trainer.networks.programs import Program
from tesserl_training.checkpoints.loading import load_module
from tesserl_training.learner import Learner
from tesserl_training.schedule import Scheduled

Forward = Callable[[TensorDictBase], TensorDictBase | dict[str, Tensor]]
"""A loss: from a batch to its entries ``loss*`` and its metrics."""


class Acting(Protocol):
    """Anything that acts."""

    def act(self, *inputs: Tensor) -> Tensor:
        """Return actions ``[N, ...]`` for one tensor ``[N, ...]`` of each observation key."""


class Policy(Acting, Protocol):
    """A policy that explores."""

    @property
    def network(self) -> nn.Module:
        """The network that it acts with."""

    def greedy(self) -> AbstractContextManager[Acting]:
        """Return the policy that does not explore, for the time of a ``with`` block."""


@runtime_checkable
class Remembering(Protocol):
    """A policy with a memory."""

    start: Start
    """Called with the environments that begin an episode."""


@runtime_checkable
class Exporting(Protocol):
    """A policy that can be exported."""

    def program(self) -> Program:
        """Return the greedy policy as a function of plain tensors."""


def start_of(policy: Acting) -> Start | None:
    """Return the policy's method that resets memory at the start of an episode; None for a policy without memory."""
    return policy.start if isinstance(policy, Remembering) else None


PolicyT = TypeVar("PolicyT", bound=Policy)
LossT = TypeVar("LossT", bound=nn.Module)
SavedT = TypeVar("SavedT", bound=nn.Module)
PolicyT_co = TypeVar("PolicyT_co", bound=Policy, covariant=True)
LossT_co = TypeVar("LossT_co", bound=nn.Module, covariant=True)
SavedT_co = TypeVar("SavedT_co", bound=nn.Module, covariant=True)


def nothing(updates: int) -> None:
    """Do nothing after a gradient step."""


@dataclass(frozen=True)
class Actor(Generic[PolicyT_co]):
    """A network with only its acting functions, for processes that do not learn."""

    policy: PolicyT_co
    act: Act  # called by the collector
    schedules: list[Scheduled]


@dataclass(frozen=True)
class Agent(Actor[PolicyT_co], Generic[PolicyT_co, LossT_co, SavedT_co]):
    """A network with its loss, its optimiser and its acting functions, see `Actor`."""

    saved: SavedT_co  # checkpoints store its state dict as networks
    loss: LossT_co
    forward: Forward  # the loss, or its compiled form
    parameters: list[nn.Parameter]  # the trainable ones
    optimizer: Optimizer
    precision: Precision
    max_grad_norm: float | None
    updated: Callable[[int], None] = nothing  # called after every gradient step with the number of steps so far
    has_value: bool = False  # whether the network's value was trained
    compiled: bool = False  # whether the loss is compiled
    graphed: bool = False  # whether gradient steps are recorded as CUDA graphs

    def load_networks(self, state: Mapping[str, Tensor], source: Path) -> None:
        """Load the networks of a checkpoint; an error lists the differences from this configuration and task."""
        load_module(self.saved, state, str(source))

    def learner(self) -> Learner:
        """Return the object that makes gradient steps."""
        kind: type[Learner] = Learner
        if self.graphed:
            from tesserl_training.cuda_graph import GraphedLearner  # imports torchrl, which acting does not need

            kind = GraphedLearner
        return kind(
            loss=self.loss,
            forward=self.forward,
            parameters=self.parameters,
            optimizer=self.optimizer,
            max_grad_norm=self.max_grad_norm,
            updated=self.updated,
            compiled=self.compiled or self.graphed,
        )


class LearningOptions(Protocol):
    """Options of an algorithm that its gradient steps depend on; see `Graphed` for ``cuda_graph``."""

    precision: Precision
    compile: bool
    max_grad_norm: float | None


def agent_of(
    config: RunConfig,
    options: LearningOptions,
    actor: Actor[PolicyT],
    loss: LossT,
    saved: SavedT,
    *,
    forward: Forward | None = None,
    optimizer: Optimizer | None = None,
    schedules: Sequence[Scheduled] = (),
    updated: Callable[[int], None] = nothing,
    has_value: bool = False,
) -> Agent[PolicyT, LossT, SavedT]:
    """Add a loss and an optimiser to an actor; see `Agent` for the arguments.

    Args:
        config: the whole configuration.
        options: the block of the algorithm.
        actor: the acting side; its network is on the device already.
        loss: see `Agent`.
        saved: see `Agent`.
        forward: see `Agent`; None derives it from the loss and the options.
        optimizer: None builds one over the trainable parameters.
        schedules: of the loss's coefficients.
        updated: see `Agent`.
        has_value: see `Agent`.
    """
    network = actor.policy.network
    graphed = isinstance(options, Graphed) and options.cuda_graph
    optimizer = optimizer_of(config, network, capturable=graphed) if optimizer is None else optimizer
    if forward is None:
        forward = forward_of(loss, precision=options.precision, compiled=options.compile, device=config.device)
    return Agent(
        saved=saved,
        loss=loss,
        forward=forward,
        parameters=learning(network),
        optimizer=optimizer,
        policy=actor.policy,
        act=actor.act,
        schedules=[*actor.schedules, *schedules, learning_rate_schedule(config.optimizer, optimizer)],
        precision=options.precision,
        max_grad_norm=options.max_grad_norm,
        updated=updated,
        has_value=has_value,
        compiled=options.compile,
        graphed=graphed,
    )


AnyActor = Actor[Policy]
"""An actor of any algorithm."""

AnyAgent = Agent[Policy, nn.Module, nn.Module]
"""An agent of any algorithm."""


def learning(network: nn.Module) -> list[nn.Parameter]:
    """Return the trainable parameters of a network."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def forward_of(loss: nn.Module, *, precision: str, compiled: bool, device: str) -> Forward:
    """Return the loss as a function: compiled if ``compiled``, under autocast if the precision is bfloat16."""
    if precision == "auto":
        raise ValueError("precision: expected float32 or bfloat16, got auto, which is for train(); choose one")
    forward: Forward = torch.compile(loss) if compiled else getattr(loss, "results", loss)
    if precision == "float32":
        return forward

    def under_autocast(batch: TensorDictBase) -> TensorDictBase | dict[str, Tensor]:
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            return forward(batch)

    return under_autocast


def observing_rollouts(network: nn.Module, ranks: Ranks = ALONE) -> Callable[[TensorDictBase], None]:
    """Return the function that updates a network's observation statistics with a rollout ``[N, T]``.

    Args:
        network: with or without running statistics.
        ranks: the ranks, if each has its own rollout; `ALONE` if all ranks have the same rollout.
    """
    statistics = [module for module in network.modules() if isinstance(module, RunningNormalizer)]
    upload = Uploads(statistics[0].mean.device) if statistics else None

    def observe(rollout: TensorDictBase) -> None:
        if upload is not None:
            observation = upload({"observation": rollout["observation"]})["observation"]
            for normalizer in statistics:
                ranks.update_statistics(normalizer, observation)

    return observe
