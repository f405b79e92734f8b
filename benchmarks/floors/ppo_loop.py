"""PPO end to end on a vector environment that resets by itself: actor and critic of two tanh layers each.

It runs the passes of ``tesserl_trainer``'s on-policy loop in the same order: the critic evaluates each rollout once,
when it is complete.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor, nn
from torch.nn import functional

Parameters = list[Tensor]  # weight and bias of the three layers of the actor, then of the critic


@dataclass(frozen=True)
class Settings:
    num_steps: int = 128
    num_epochs: int = 4
    num_minibatches: int = 4
    discount: float = 0.99
    gae_lambda: float = 0.95
    clip_epsilon: float = 0.2
    value_coef: float = 1.0  # weight of half the squared error
    entropy_coef: float = 0.01
    learning_rate: float = 2.5e-4
    max_grad_norm: float = 0.5


def parameters(features: int, actions: int, width: int = 64) -> list[nn.Parameter]:
    """Orthogonal weights and zero biases."""
    made = []
    for outputs, gain in ((actions, 0.01), (1, 1.0)):
        for fan_in, fan_out, scale in ((features, width, 2**0.5), (width, width, 2**0.5), (width, outputs, gain)):
            weight = nn.init.orthogonal_(torch.empty(fan_out, fan_in), scale)
            made += [nn.Parameter(weight), nn.Parameter(torch.zeros(fan_out))]
    return made


def mlp(p: Parameters, x: Tensor) -> Tensor:
    hidden = torch.tanh(functional.linear(x, p[0], p[1]))
    return functional.linear(torch.tanh(functional.linear(hidden, p[2], p[3])), p[4], p[5])


def ppo_loss(
    p: Parameters,
    observation: Tensor,
    action: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    value_target: Tensor,
    settings: Settings,
) -> Tensor:
    """Loss of a minibatch ``[B]``."""
    log_softmax = functional.log_softmax(mlp(p[:6], observation), -1)
    log_probs = log_softmax.gather(-1, action.unsqueeze(-1)).squeeze(-1)
    entropy = -(log_softmax.exp() * log_softmax).sum(-1).mean()
    std, mean = torch.std_mean(advantages)
    advantages = (advantages - mean) / (std + 1e-8)
    ratio = (log_probs - old_log_probs).exp()
    clipped = ratio.clamp(1 - settings.clip_epsilon, 1 + settings.clip_epsilon)
    surrogate = torch.minimum(ratio * advantages, clipped * advantages).mean()
    value = mlp(p[6:], observation).squeeze(-1)
    value_loss = 0.5 * functional.mse_loss(value, value_target)
    return settings.value_coef * value_loss - surrogate - settings.entropy_coef * entropy


def advantage_estimates(
    reward: np.ndarray,
    value: np.ndarray,
    next_value: np.ndarray,
    terminated: np.ndarray,
    done: np.ndarray,
    settings: Settings,
) -> np.ndarray:
    """Generalised advantages ``[T, N]``; truncated episodes are bootstrapped."""
    deltas = reward + settings.discount * next_value * ~terminated - value
    decay = settings.discount * settings.gae_lambda * ~done
    advantages, last = np.empty_like(deltas), np.zeros_like(deltas[0])
    for t in range(len(deltas) - 1, -1, -1):
        last = deltas[t] + decay[t] * last
        advantages[t] = last
    return advantages


class PPOLoop:
    """Trains on an environment in SAME_STEP mode; ``seconds`` says where the time went.

    ``compiled`` compiles the loss with its gradient. LeanRL compiles acting too, which is slower on a CPU.
    """

    def __init__(self, environments: VectorEnv, settings: Settings, seed: int, *, compiled: bool = False) -> None:
        if environments.metadata["autoreset_mode"] is not AutoresetMode.SAME_STEP:
            raise ValueError("environments must reset in the same step")
        self.environments, self.settings = environments, settings
        self.loss = torch.compile(ppo_loss) if compiled else ppo_loss
        features, actions = environments.single_observation_space.shape[0], environments.single_action_space.n
        self.parameters = parameters(features, int(actions))
        self.optimizer = torch.optim.Adam(self.parameters, settings.learning_rate, eps=1e-5, fused=True)
        shape = (settings.num_steps, environments.num_envs)
        self.observation = np.zeros((shape[0] + 1, *shape[1:], features), np.float32)
        self.reward = np.zeros(shape, np.float32)
        self.terminated, self.truncated = np.zeros(shape, bool), np.zeros(shape, bool)
        self.observation[-1], _ = environments.reset(seed=seed)
        names = ("collect", "advantages", "minibatches", "forward", "backward", "optimiser")
        self.seconds = dict.fromkeys(names, 0.0)
        self._last = time.perf_counter()

    def __call__(self, steps: int) -> int:
        """Train for at least ``steps`` environment steps; return their number."""
        rollouts = -(-steps // self.reward.size)
        for _ in range(rollouts):
            self._last = time.perf_counter()
            self.learn(self.rollout())
        return rollouts * self.reward.size

    @torch.no_grad()
    def rollout(self) -> tuple[Tensor, ...]:
        """Return observations, actions, log-probabilities, advantages and value targets, each ``[T N, ...]``."""
        self.observation[0] = self.observation[-1]
        logits, actions, finals = [], [], []
        for t in range(self.settings.num_steps):
            logits.append(mlp(self.parameters[:6], torch.from_numpy(self.observation[t])))
            actions.append((logits[-1] - torch.empty_like(logits[-1]).exponential_().log_()).argmax(-1))
            step = self.environments.step(actions[-1].numpy())
            self.observation[t + 1], self.reward[t], self.terminated[t], self.truncated[t], info = step
            finals += [(t, n, info["final_obs"][n]) for n in np.flatnonzero(self.truncated[t]).tolist()]
        self._lap("collect")
        values = mlp(self.parameters[6:], torch.from_numpy(self.observation)).squeeze(-1).numpy()
        value, next_value = values[:-1], values[1:].copy()
        if finals:  # the next observation is that of another episode
            last = torch.from_numpy(np.stack([final for _, _, final in finals]))
            for (t, n, _), bootstrap in zip(finals, mlp(self.parameters[6:], last).squeeze(-1).tolist(), strict=True):
                next_value[t, n] = bootstrap
        done = self.terminated | self.truncated
        advantages = advantage_estimates(self.reward, value, next_value, self.terminated, done, self.settings)
        action = torch.stack(actions)
        log_probs = functional.log_softmax(torch.stack(logits), -1).gather(-1, action.unsqueeze(-1))
        observation = torch.from_numpy(self.observation[:-1]).flatten(0, 1)
        rest = (action, log_probs, torch.from_numpy(advantages), torch.from_numpy(advantages + value))
        self._lap("advantages")
        return observation, *(tensor.flatten() for tensor in rest)

    def learn(self, batch: tuple[Tensor, ...]) -> None:
        """Train for several epochs on shuffled minibatches."""
        for _ in range(self.settings.num_epochs):
            for index in torch.randperm(len(batch[0])).chunk(self.settings.num_minibatches):
                minibatch = [tensor[index] for tensor in batch]
                self._lap("minibatches")
                loss = self.loss(self.parameters, *minibatch, settings=self.settings)
                self._lap("forward")
                for parameter in self.parameters:
                    parameter.grad = None
                loss.backward()
                self._lap("backward")
                nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm, foreach=True)
                self.optimizer.step()
                self._lap("optimiser")

    def _lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] += now - self._last
        self._last = now
