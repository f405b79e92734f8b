"""IQN with torchrl's replay buffer instead of Tesserl's: CartPole reaches a return of 200 in a minute."""

import gymnasium as gym
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer

from tesserl_iqn import IQNLoss, QuantileNetwork, QuantilePolicy, TargetUpdater
from tesserl_nn_components import VectorEncoder

NUM_ENVS, NUM_STEPS, WARMUP = 8, 5_000, 100

torch.manual_seed(1)
environments = SyncVectorEnv([lambda: gym.make("CartPole-v1")] * NUM_ENVS, autoreset_mode=AutoresetMode.SAME_STEP)
network = QuantileNetwork(VectorEncoder(4, hidden_sizes=[64, 64]), num_actions=2, hidden_sizes=(64,))
loss, policy = IQNLoss(network, num_taus=8, num_target_taus=8, discount=0.99), QuantilePolicy(network, num_taus=8)
updater, optimizer = TargetUpdater(loss, rate=0.01), torch.optim.Adam(loss.parameters(), lr=5e-4)
buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(50_000), batch_size=128)

observation, _ = environments.reset(seed=1)
for step in range(NUM_STEPS):
    policy.epsilon = max(1.0 - step / 1_000, 0.05)
    state = torch.as_tensor(observation)
    with torch.no_grad():
        action = policy.act(state)
    observation, reward, terminated, truncated, info = environments.step(action.numpy())
    last = observation.copy()  # replaced below by the final observation if an episode ended in this step
    for index in (terminated | truncated).nonzero()[0]:
        last[index] = info["final_obs"][index]
    after = {
        "observation": torch.as_tensor(last),
        "reward": torch.as_tensor(reward, dtype=torch.float32).unsqueeze(-1),
        "terminated": torch.as_tensor(terminated).unsqueeze(-1),
    }
    buffer.extend(TensorDict({"observation": state, "action": action, "next": after}, [NUM_ENVS]))
    if step >= WARMUP:
        loss(buffer.sample())["loss"].backward()
        optimizer.step(), optimizer.zero_grad(), updater.step()

environment, total = gym.make("CartPole-v1"), 0.0
with policy.greedy(), torch.no_grad():
    for seed in range(20):
        observation, done = environment.reset(seed=1_000 + seed)[0], False
        while not done:
            action = policy.act(torch.as_tensor(observation).unsqueeze(0))
            observation, reward, terminated, truncated, _ = environment.step(int(action))
            total, done = total + float(reward), terminated or truncated
print(f"IQN on CartPole: {total / 20:.1f} over 20 episodes")
if total / 20 < 200:
    raise SystemExit("expected a return of at least 200")
