"""Build PQN from ``pqn:``; the trainer imports this module when it builds a run of PQN."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from tesserl_configs import ConfigError, value_at
from tesserl_nn_components import width_of
from tesserl_policy import mask_actions
from tesserl_pqn.loss import PQNLoss
from tesserl_pqn.network import QNetwork
from tesserl_pqn.plugin import options_of
from tesserl_pqn.policy import EpsilonGreedy
from tesserl_pqn.targets import QLambdaTargets
from tesserl_trainer.algorithms.agent import Actor, Agent, agent_of, observing_rollouts
from tesserl_trainer.algorithms.environments import discrete_actions
from tesserl_trainer.algorithms.run import Run, make_collector
from tesserl_trainer.algorithms.schedules import attributes
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.machine import device_of
from tesserl_trainer.networks.bodies import build_body
from tesserl_trainer.networks.heads import build_quantile_head
from tesserl_trainer.networks.named_parts import freeze_parts
from tesserl_trainer.networks.programs import Choices, Program, Spec, Tensors, exportable, spec
from tesserl_training.advantages import OUTCOME, following_values, upload_to, valid_steps
from tesserl_training.loops.on_policy import OnPolicyLoop, Pace


class QProgram(Program):
    """The greedy policy of a Q-network.

    It holds a copy of the network in evaluation mode, on the CPU, including its normalisation.

    Args:
        network: the network.
    """

    def __init__(self, network: QNetwork) -> None:
        super().__init__()
        self.network = exportable(network)
        self.eval()

    def specs(self) -> dict[str, Spec]:
        """Return each output by its name."""
        network = self.network
        specs = {"action_value": spec(network.num_actions), "action": spec(dtype="int64")}
        if network.num_quantiles is not None:
            specs["quantile_values"] = spec(network.num_quantiles, network.num_actions)
        return specs

    def choices(self, outputs: Tensors, action: Tensor) -> Choices:
        """Return the values that the best action maximises, ``[B, A]``, and the actions chosen, ``[B]``."""
        return [(outputs["action_value"], action)]

    def forward(
        self, *, pixels: Tensor | None = None, observation: Tensor | None = None, action_mask: Tensor | None = None
    ) -> Tensors:
        """Evaluate all actions and choose the best.

        Args:
            pixels: ``[B, C, H, W]``, if the network takes them.
            observation: ``[B, F]``, if the network takes it.
            action_mask: true for allowed actions, bool ``[B, A]``, if the task has masks; forbidden actions get
                the smallest finite value.

        Returns:
            ``action_value`` ``[B, A]``, the best ``action`` ``[B]``, and ``quantile_values`` ``[B, K, A]`` if
            the network has quantiles.
        """
        outputs = self.network(*(tensor for tensor in (pixels, observation) if tensor is not None))
        action_value = self.network.expectation(outputs)
        if action_mask is not None:
            action_value = mask_actions(action_value, action_mask)
        named = {"action_value": action_value, "action": action_value.argmax(dim=-1)}
        return named if self.network.num_quantiles is None else {**named, "quantile_values": outputs}


class Policy(EpsilonGreedy):
    """The policy of a run, which can be exported and keeps no state between actions."""

    def program(self) -> QProgram:
        """Return the greedy policy as a function of plain tensors."""
        return QProgram(self.network)

    def state_dict(self) -> dict[str, object]:
        """Return an empty state: epsilon is a schedule, and recorded outputs are consumed within their round."""
        return {}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Do nothing, because the state is empty."""


class Batches:
    """Make the batch of the loss from a rollout and the outputs that the policy recorded while acting.

    Args:
        policy: policy that collected the rollout.
        targets: module that computes lambda-returns.
        keys: observation keys.
        device: device of the batch.
    """

    def __init__(self, policy: Policy, targets: QLambdaTargets, keys: list[str], device: str) -> None:
        self.policy, self.targets, self.keys, self._upload = policy, targets, keys, upload_to(device)

    @torch.no_grad()
    def __call__(self, rollout: TensorDictBase) -> TensorDictBase:
        """Return the observation keys, ``action`` and ``value_target`` of the valid steps of a rollout ``[N, T]``."""
        network = self.policy.network
        entries = {key: rollout[key] for key in [*self.keys, "action"]}
        outcome = {name: rollout["next", name] for name in OUTCOME}
        # [T, N, ...], the memory layout of the collector
        steps = self._upload({key: entry.transpose(0, 1) for key, entry in {**entries, **outcome}.items()})
        following = following_values(
            rollout,
            self.keys,
            network.bootstrap(self.policy.pop()),  # [T, N], or [T, N, K]
            lambda rows, _time, _env: network.bootstrap(network(*rows)),
            self._upload,
        )
        reward, terminated, truncated = (steps[name].transpose(0, 1) for name in OUTCOME)
        target = self.targets.targets(reward, following.transpose(0, 1), terminated, truncated).transpose(0, 1)
        data = {**{key: steps[key] for key in entries}, "value_target": target}
        return valid_steps(data, rollout["mask"], self._upload)

    def state_dict(self) -> dict[str, object]:
        """Return an empty state: a rollout is consumed within its round."""
        return {}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Do nothing, because the state is empty."""


PQNAgent = Agent[Policy, PQNLoss, QNetwork]


def build_network(task: Task) -> QNetwork:
    """Build the Q-network.

    Raises:
        ConfigError: the task does not have a single discrete action.
    """
    config, num_quantiles = task.config, options_of(task.config).num_quantiles
    num_actions, num_blocks = discrete_actions(task.action_space)
    if num_blocks is not None:
        raise ConfigError(
            f"environment.id: pqn needs one Discrete action, got {task.action_space}; use iqn, or convert the actions "
            "in a wrapper"
        )
    body = build_body(config.nn, task.layout)
    head = build_quantile_head(config.nn.heads, width_of(body), num_actions, num_quantiles)
    network = QNetwork(body, num_actions, num_quantiles=num_quantiles, head=head)
    freeze_parts(network, config.nn.freeze)
    return network


def build_agent(task: Task, network: nn.Module) -> PQNAgent:
    """Build the loss, the optimiser and the policy around a network.

    Args:
        task: task of the run.
        network: a ``QNetwork``; it is moved to the device.

    Raises:
        ConfigError: the device does not exist, or every part is frozen.
        TypeError: the network is not a ``QNetwork``.
    """
    config, options = task.config, options_of(task.config)
    if not isinstance(network, QNetwork):
        raise TypeError(f"pqn does not train a {type(network).__name__}; build the network with build_network")
    network.to(device_of(config.device))
    policy = Policy(
        network,
        epsilon=value_at(options.epsilon, 0),
        evaluation_epsilon=options.evaluation_epsilon,
        seed=config.evaluation.seed,
    )
    actor = Actor(policy, policy.act, attributes(policy, epsilon=options.epsilon))
    return agent_of(config, options, actor, PQNLoss(network, kappa=options.kappa), network)


def build_loop(task: Task, run: Run) -> OnPolicyLoop:
    """Build the loop: collect a rollout, compute its lambda-returns, learn from minibatches for some epochs."""
    config, options = task.config, options_of(task.config)
    environments = run.keep(task.environments(config.environment.num_envs))
    agent = build_agent(task, run.network(task))
    agent.policy.record = True
    collector = make_collector(task, agent, environments)
    targets = QLambdaTargets(agent.saved, discount=options.discount, lambda_=options.q_lambda)
    return OnPolicyLoop(
        agent.learner(),
        collector,
        agent.policy,
        Batches(agent.policy, targets, list(task.layout.keys), config.device),
        observing_rollouts(agent.saved, run.ranks),
        Pace(options.num_steps, options.num_epochs, options.num_minibatches),
        run.journal(task, agent, collector.pop_episodes),
        remedy="lower optimizer.learning_rate or pqn.max_grad_norm, or check that nn has LayerNorm",
    )
