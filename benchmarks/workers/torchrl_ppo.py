"""PPO of torchrl's own pieces: Collector, GAE, ClipPPOLoss, a replay buffer that is emptied without replacement.

Assembled as in torchrl's ``sota-implementations/ppo``, but advantages once a rollout instead of once an epoch, and no
transforms. A request is a number of environment steps to train. ``environments`` is ``"serial"``, torchrl's SerialEnv,
or ``"wrapped"``, a vector environment of Gymnasium that torchrl resets: its fastest correct form.
"""

import json
import logging
import sys
import warnings

import gymnasium as gym
import torch
from gymnasium.vector import AutoresetMode
from stdio import Clock, serve
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributions import Categorical
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, SamplerWithoutReplacement, TensorDictReplayBuffer
from torchrl.envs import EnvBase, GymEnv, GymWrapper, SerialEnv
from torchrl.modules import ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE


def environments(kind: str, task: str, num_envs: int) -> EnvBase:
    if kind == "serial":
        return SerialEnv(num_envs, lambda: GymEnv(task, categorical_action_encoding=True))
    vector = gym.make_vec(
        task, num_envs, vectorization_mode="sync", vector_kwargs={"autoreset_mode": AutoresetMode.DISABLED}
    )
    return GymWrapper(vector, categorical_action_encoding=True)


def network(features: int, outputs: int, gain: float, width: int = 64) -> nn.Sequential:
    layers = [nn.Linear(features, width), nn.Linear(width, width), nn.Linear(width, outputs)]
    for layer, scale in zip(layers, (2**0.5, 2**0.5, gain), strict=True):
        nn.init.orthogonal_(layer.weight, scale)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


class PPO:
    """Trains a rollout at a time."""

    def __init__(self, settings: dict) -> None:
        options = settings["ppo"]
        vector = environments(settings["environments"], settings["task"], settings["num_envs"])
        vector.set_seed(settings["seed"])
        features, actions = vector.observation_spec["observation"].shape[-1], vector.action_spec.space.n
        logits = TensorDictModule(network(features, actions, 0.01), in_keys=["observation"], out_keys=["logits"])
        actor = ProbabilisticActor(logits, in_keys=["logits"], distribution_class=Categorical, return_log_prob=True)
        critic = ValueOperator(network(features, 1, 1.0), in_keys=["observation"])
        self.frames = settings["num_envs"] * options["num_steps"]
        with warnings.catch_warnings(action="ignore"):
            self.collector = Collector(vector, actor, frames_per_batch=self.frames, total_frames=-1)
        self.advantages = GAE(
            gamma=options["discount"], lmbda=options["gae_lambda"], value_network=critic, average_gae=False
        )
        self.loss = ClipPPOLoss(
            actor,
            critic,
            clip_epsilon=options["clip_epsilon"],
            entropy_coeff=options["entropy_coef"],
            critic_coeff=0.5 * options["value_coef"],  # of the squared error, ours of half of it
            loss_critic_type="l2",
            normalize_advantage=True,
        )
        self.buffer = TensorDictReplayBuffer(
            storage=LazyTensorStorage(self.frames),
            sampler=SamplerWithoutReplacement(),
            batch_size=self.frames // options["num_minibatches"],
        )
        self.optimizer = torch.optim.Adam(self.loss.parameters(), options["learning_rate"], eps=1e-5)
        self.num_epochs, self.max_grad_norm = options["num_epochs"], options["max_grad_norm"]
        self.batches = iter(self.collector)

    def round(self) -> None:
        data = next(self.batches)
        with torch.no_grad():
            data = self.advantages(data)
        self.buffer.extend(data.reshape(-1))
        for _ in range(self.num_epochs):
            for minibatch in self.buffer:
                losses = self.loss(minibatch)
                (losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]).backward()
                nn.utils.clip_grad_norm_(self.loss.parameters(), self.max_grad_norm)
                self.optimizer.step()
                self.optimizer.zero_grad()


def main() -> None:
    settings = json.loads(sys.argv[1])
    torch.manual_seed(settings["seed"])
    torch.set_num_threads(1)
    logging.getLogger("torchrl").setLevel(logging.ERROR)
    ppo = PPO(settings)

    def train(steps: int) -> dict[str, float]:
        rounds = -(-steps // ppo.frames)
        clock = Clock()
        for _ in range(rounds):
            ppo.round()
        return {"count": rounds * ppo.frames, **clock.read()}

    serve(train)


if __name__ == "__main__":
    main()
