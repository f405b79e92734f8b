"""PPO in a loop of 40 lines on Gymnasium's CartPole: the greedy policy reaches a return of 400 in a minute."""

import gymnasium as gym
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from tensordict import TensorDict

from tesserl_actor_critic import ActorCritic, PPOLoss, generalized_advantage_estimate
from tesserl_nn_components import VectorEncoder

NUM_ENVS, NUM_STEPS, NUM_ROLLOUTS = 8, 128, 60


def tensor(array) -> torch.Tensor:
    """Return an array as float32."""
    return torch.as_tensor(array, dtype=torch.float32)


torch.manual_seed(1)
environments = SyncVectorEnv([lambda: gym.make("CartPole-v1")] * NUM_ENVS, autoreset_mode=AutoresetMode.SAME_STEP)
body, critic_body = (VectorEncoder(4, hidden_sizes=[64, 64], activation=torch.nn.Tanh) for _ in range(2))
network = ActorCritic(body, action_space=2, critic_body=critic_body, orthogonal=True)
loss = PPOLoss(network, entropy_coef=0.0)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, eps=1e-5)

observation, _ = environments.reset(seed=1)
for _ in range(NUM_ROLLOUTS):
    steps = []
    with torch.no_grad():
        for _ in range(NUM_STEPS):
            policy = network.distribution(*network.policy_parameters(tensor(observation)))
            action = policy.sample()
            following, reward, terminated, truncated, info = environments.step(action.numpy())
            last = following.copy()  # replaced below by the final observation if an episode ended in this step
            for index in (terminated | truncated).nonzero()[0]:
                last[index] = info["final_obs"][index]
            ends = {"terminated": torch.tensor(terminated), "truncated": torch.tensor(truncated)}
            after = {"observation": tensor(last), "reward": tensor(reward), **ends}
            known = {"action": action, "action_log_prob": policy.log_prob(action), "next": after}
            steps.append(TensorDict({"observation": tensor(observation), **known}, [NUM_ENVS]))
            observation = following
        batch = torch.stack(steps, dim=1)  # [environments, time]
        value, next_value = (network.state_value(part["observation"]) for part in (batch, batch["next"]))
        reward, *ends = (batch["next", name].unsqueeze(-1) for name in ("reward", "terminated", "truncated"))
        batch["advantage"], batch["value_target"] = generalized_advantage_estimate(
            reward, value, next_value, *ends, discount=0.99, gae_lambda=0.95
        )
    for _ in range(10):
        for minibatch in batch.reshape(-1)[torch.randperm(batch.numel())].split(256):
            losses = loss(minibatch)
            optimizer.zero_grad()
            (losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
            optimizer.step()

environment, total = gym.make("CartPole-v1"), 0.0
for seed in range(20):
    observation, done = environment.reset(seed=1_000 + seed)[0], False
    while not done:
        with torch.no_grad():
            action = network.policy_parameters(tensor(observation))[0].argmax()
        observation, reward, terminated, truncated, _ = environment.step(int(action))
        total, done = total + float(reward), terminated or truncated
print(f"PPO on CartPole: {total / 20:.1f} over 20 episodes")
if total / 20 < 400:
    raise SystemExit("expected a return of at least 400")
