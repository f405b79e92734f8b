"""The trained policy of a run as a function of plain tensors."""

import torch

from tesserl_collectors.rollout_policy import RolloutPolicy
from tesserl_iqn import QuantilePolicy
from tesserl_iqn.fractions import distort_taus, sample_taus
from tesserl_trainer.algorithms.agent import Exporting
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.networks.programs import ActorCriticProgram, ExportError, Program, QuantileProgram
from tesserl_trainer.usage import ArgumentError
from tesserl_training.checkpoints.run_checkpoints import Weights


def load_program(task: Task, weights: Weights, num_taus: int | None = None) -> Program:
    """Return the greedy policy of a checkpoint on the CPU; ``num_taus`` midpoints, or None for taus as an input."""
    agent, algorithm = task.agent(), task.config.algorithm
    agent.load_networks(weights.networks, weights.path)
    policy = agent.policy
    if isinstance(policy, QuantilePolicy):
        if num_taus is None:
            return QuantileProgram(policy.network)
        taus = sample_taus((), num_taus, kind="midpoints", dtype=torch.float32)  # the taus of the greedy policy
        with policy.greedy() as greedy:
            risk = greedy.risk
        return QuantileProgram(policy.network, taus if risk is None else distort_taus(taus, *risk))
    if num_taus is not None:
        raise ArgumentError(f"--taus is for the quantile networks of iqn, got it for a policy of {algorithm}")
    if isinstance(policy, Exporting):
        return policy.program()
    if not isinstance(policy, RolloutPolicy):
        raise ExportError(f"a policy of {algorithm} cannot be exported; give it a method program()")
    return ActorCriticProgram(policy.network, has_value=agent.has_value)
