"""Tianshou 2.0.1's IQN on CartPole. A request is a number of environment steps to train."""

import json
import sys

import gymnasium as gym
import numpy as np
import torch
from stdio import Clock, serve
from tianshou.algorithm.modelfree.iqn import IQN, IQNPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OffPolicyTrainer, OffPolicyTrainerParams
from tianshou.utils.net.common import Net
from tianshou.utils.net.discrete import ImplicitQuantileNetwork

NUM_ENVS, CAPACITY, WARMUP = 8, 50_000, 1_000


def build(seed: int) -> OffPolicyTrainer:
    """The same settings as ``settings/iqn_cartpole.yaml``."""
    np.random.seed(seed)  # noqa: NPY002 (what Tianshou draws from)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    environments = DummyVectorEnv([lambda: gym.make("CartPole-v1") for _ in range(NUM_ENVS)])
    environments.seed(seed)
    features = Net(state_shape=4, action_shape=64, hidden_sizes=[64])
    policy = IQNPolicy(
        model=ImplicitQuantileNetwork(preprocess_net=features, action_shape=2, num_cosines=64),
        action_space=gym.spaces.Discrete(2),
        sample_size=32,
        online_sample_size=8,
        target_sample_size=8,
        eps_training=0.1,
    )
    algorithm = IQN(
        policy=policy,
        optim=AdamOptimizerFactory(lr=1e-3),
        gamma=0.99,
        n_step_return_horizon=1,
        target_update_freq=250,
    )
    buffer = VectorReplayBuffer(CAPACITY, buffer_num=NUM_ENVS)
    collector = Collector(algorithm, environments, buffer, exploration_noise=True)
    collector.reset()
    collector.collect(n_step=WARMUP, random=True)
    params = OffPolicyTrainerParams(
        training_collector=collector,
        collection_step_num_env_steps=NUM_ENVS,
        update_step_num_gradient_steps_per_sample=1 / 4,
        batch_size=128,
        max_epochs=10**9,
        verbose=False,
        show_progress=False,
    )
    trainer = OffPolicyTrainer(algorithm, params)
    trainer.reset()
    return trainer


def main() -> None:
    trainer = build(json.loads(sys.argv[1])["seed"])

    def train(steps: int) -> dict[str, float]:
        trainer.params.epoch_num_steps = steps
        clock = Clock()
        trainer.execute_epoch()
        return {"count": steps, **clock.read()}

    serve(train)


if __name__ == "__main__":
    main()
