"""Tianshou 2.0.1's IQN. A request is a number of environment steps to train; it reads ``settings/iqn_peers.yaml``.

With the setting ``evaluation`` it answers one request only, with its evaluations and the returns of the best and of
the last weights. With ``check_buffer: false`` its trainer does not look for missing values in the whole buffer after
every collection, which it has no option for and which takes the longer, the fuller the buffer is.
"""

import copy
import json
import sys

import gymnasium as gym
import numpy as np
import torch
from episodes import FINAL_SEEDS, play
from stdio import Clock, serve
from tasks import make
from tianshou.algorithm.modelfree.iqn import IQN, IQNPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Batch, Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OffPolicyTrainer, OffPolicyTrainerParams
from tianshou.utils.net.common import ModuleWithVectorOutput, Net
from tianshou.utils.net.discrete import ImplicitQuantileNetwork
from torch import Tensor, nn

# channels, kernel and stride of each layer, the width of the linear one, and what pixels are divided by
CONVOLUTIONS = {
    "nature": ([(32, 8, 4), (64, 4, 2), (64, 3, 1)], 512, 255.0),
    "minatar": ([(16, 3, 1)], 128, 1.0),
}


class Pixels(ModuleWithVectorOutput):
    """Convolutions and a linear layer."""

    def __init__(self, shape: tuple[int, ...], name: str) -> None:
        convolutions, width, self.scale = CONVOLUTIONS[name]
        super().__init__(width)
        layers: list[nn.Module] = []
        channels = shape[0]
        for out_channels, kernel, stride in convolutions:
            layers += [nn.Conv2d(channels, out_channels, kernel, stride), nn.ReLU()]
            channels = out_channels
        features = nn.Sequential(*layers, nn.Flatten())
        flat = features(torch.zeros(1, *shape)).shape[1]
        self.layers = nn.Sequential(features, nn.Linear(flat, width), nn.ReLU())

    def forward(self, obs: np.ndarray | Tensor, state: object = None, **_: object) -> tuple[Tensor, object]:
        return self.layers(torch.as_tensor(obs).float() / self.scale), state


def build_policy(settings: dict, environment: gym.Env) -> IQNPolicy:
    shape, num_actions = environment.observation_space.shape, int(environment.action_space.n)
    if settings["network"] == "mlp":
        features = Net(state_shape=shape[0], action_shape=64, hidden_sizes=[64])
    else:
        features = Pixels(shape, settings["network"])
    return IQNPolicy(
        model=ImplicitQuantileNetwork(preprocess_net=features, action_shape=num_actions, num_cosines=64),
        action_space=environment.action_space,
        sample_size=settings["num_policy_taus"],
        online_sample_size=8,
        target_sample_size=8,
    )


def build(settings: dict) -> OffPolicyTrainer:
    np.random.seed(settings["seed"])  # noqa: NPY002 (what Tianshou draws from)
    torch.manual_seed(settings["seed"])
    torch.set_num_threads(1)
    num_envs = settings["num_envs"]
    environments = DummyVectorEnv([lambda: make(settings["task"]) for _ in range(num_envs)])
    environments.seed(settings["seed"])
    policy = build_policy(settings, make(settings["task"]))
    algorithm = IQN(
        policy=policy,
        optim=AdamOptimizerFactory(lr=settings["learning_rate"]),
        gamma=0.99,
        n_step_return_horizon=settings["num_steps"],
        target_update_freq=settings["target_interval"],
    )
    epsilon = settings["epsilon"]
    first, last, decay = epsilon if isinstance(epsilon, list) else (epsilon, epsilon, 1)
    policy.set_eps_training(first)
    collector = Collector(
        algorithm, environments, VectorReplayBuffer(settings["capacity"], buffer_num=num_envs), exploration_noise=True
    )
    if not settings.get("check_buffer", True):
        collector.buffer.hasnull = lambda: False
    collector.reset()
    collector.collect(n_step=settings["warmup"], random=True)
    params = OffPolicyTrainerParams(
        training_collector=collector,
        collection_step_num_env_steps=num_envs,
        update_step_num_gradient_steps_per_sample=1 / settings["update_interval"],
        batch_size=settings["batch_size"],
        max_epochs=10**9,
        training_fn=lambda _, step: policy.set_eps_training(first + (last - first) * min(step / decay, 1.0)),
        verbose=False,
        show_progress=False,
    )
    trainer = OffPolicyTrainer(algorithm, params)
    trainer.reset()
    return trainer


def main() -> None:
    settings = json.loads(sys.argv[1])
    trainer = build(settings)
    policy = trainer.algorithm.policy

    def train(steps: int) -> dict[str, float]:
        trainer.params.epoch_num_steps = steps
        clock = Clock()
        trainer.execute_epoch()
        return {"count": steps, **clock.read()}

    def returns(seed: int, episodes: int) -> list[float]:
        policy.eval()
        with torch.no_grad():
            seeds, limit = range(seed, seed + episodes), settings["evaluation"]["max_episode_steps"]
            scores = play(
                lambda batch: policy(Batch(obs=batch, info={})).act, lambda: make(settings["task"]), seeds, limit
            )
        policy.train()
        return scores

    def learn(steps: int) -> dict[str, object]:
        evaluation, taken = settings["evaluation"], settings["warmup"]
        answer, curve, best, best_weights = {"wall": 0.0, "cpu": 0.0}, [], float("-inf"), None
        while taken < steps:
            part = train(min(evaluation["interval"], steps - taken))
            answer = {name: answer[name] + part[name] for name in answer}
            taken += int(part["count"])
            score = float(np.mean(returns(evaluation["seed"], evaluation["episodes"])))
            curve.append((taken, score))
            if score >= best:
                best, best_weights = score, copy.deepcopy(policy.state_dict())
        last = returns(evaluation["seed"] + FINAL_SEEDS, evaluation["final_episodes"])
        policy.load_state_dict(best_weights)
        chosen = returns(evaluation["seed"] + FINAL_SEEDS, evaluation["final_episodes"])
        return {**answer, "count": taken, "best": best, "curve": curve, "last_returns": last, "returns": chosen}

    serve(learn if "evaluation" in settings else train)


if __name__ == "__main__":
    main()
