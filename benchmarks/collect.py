"""Collecting CartPole with a 64x64 policy: our collector, a bare loop, and torchrl's collector."""

import logging
import warnings

import gymnasium as gym
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.collectors import Collector as TorchRLCollector
from torchrl.envs import GymWrapper
from torchrl.modules import ProbabilisticActor

from common.harness import HEADER, Bar, Comparison, Side, arguments, compare, finish, repeated
from floors.rollout import Rollout
from tesserl_collectors.collector import Collector
from tesserl_environments import ObservationLayout

FRAMES = 1024  # per call, over all environments


class Policy(nn.Module):
    """Samples from the softmax of a network as the argmax of logits plus Gumbel noise."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))

    def forward(self, observation: Tensor) -> Tensor:
        logits = self.layers(observation)
        return (logits - torch.empty_like(logits).exponential_().log()).argmax(-1)


def environments(num_envs: int, mode: AutoresetMode | None) -> VectorEnv:
    """Make single CartPoles with an autoreset mode, or for None Gymnasium's vectorised CartPole."""
    if mode is None:
        return gym.make_vec("CartPole-v1", num_envs, vectorization_mode="vector_entry_point")
    return gym.make_vec("CartPole-v1", num_envs, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode})


def ours(num_envs: int, mode: AutoresetMode | None, policy: Policy, seconds: float) -> Side:
    vector = environments(num_envs, mode)
    vector.reset(seed=0)
    collector = Collector(vector, ObservationLayout(vector.single_observation_space), policy)

    def collect() -> None:
        collector.collect(FRAMES // num_envs)
        collector.pop_episodes()

    return repeated(collect, seconds)


def bare(num_envs: int, policy: Policy, seconds: float) -> Side:
    rollout = Rollout(environments(num_envs, AutoresetMode.NEXT_STEP), policy)
    return repeated(lambda: rollout(FRAMES // num_envs), seconds)


def torchrl(num_envs: int, policy: Policy, seconds: float, *, actor: str) -> Side:
    """Return torchrl's collector in its fastest correct form: one process, a wrapped vector environment.

    ``actor`` is ``"distribution"``, where torchrl samples from the logits, or ``"module"``, our unchanged policy.
    """
    wrapped = GymWrapper(environments(num_envs, AutoresetMode.DISABLED), categorical_action_encoding=True)
    wrapped.set_seed(0)
    if actor == "module":
        chooser = TensorDictModule(policy, in_keys=["observation"], out_keys=["action"])
    else:
        logits = TensorDictModule(policy.layers, in_keys=["observation"], out_keys=["logits"])
        chooser = ProbabilisticActor(logits, in_keys=["logits"], distribution_class=torch.distributions.Categorical)
    with warnings.catch_warnings(action="ignore"):
        collector = TorchRLCollector(
            wrapped, chooser, frames_per_batch=FRAMES, total_frames=-1, auto_register_policy_transforms=False
        )
    batches = iter(collector)
    return repeated(lambda: next(batches), seconds)


def main() -> list[Comparison]:
    options = arguments(__doc__, seconds=1.0).parse_args()
    torch.set_num_threads(1)
    logging.getLogger("torchrl").setLevel(logging.ERROR)
    torch.manual_seed(0)
    policy, seconds = Policy(), options.seconds
    print(HEADER, f"   (a unit is {FRAMES} environment steps)")
    comparisons = []
    for num_envs, of_bare, times_torchrl in ((8, 0.93, 5.0), (64, 0.97, 3.0)):
        peers = {
            "bare loop": bare(num_envs, policy, seconds),
            "torchrl": torchrl(num_envs, policy, seconds, actor="distribution"),
            "torchrl, module as policy": torchrl(num_envs, policy, seconds, actor="module"),
        }
        rows = [  # torchrl cannot step the vectorised CartPole, and needs DISABLED
            ("bare loop", AutoresetMode.NEXT_STEP, of_bare),
            ("torchrl", AutoresetMode.DISABLED, None),
            ("torchrl, module as policy", AutoresetMode.DISABLED, None),
            ("torchrl", None, times_torchrl),
            ("torchrl, module as policy", None, None),
        ]
        comparisons += [
            compare(
                f"{num_envs} {'environments' if mode else 'vectorised'}, by {name}",
                peers[name],
                ours(num_envs, mode, policy, seconds),
                Bar("speed", limit),
                rounds=options.rounds,
            )
            for name, mode, limit in rows
        ]
    return comparisons


if __name__ == "__main__":
    finish("collect", main())
