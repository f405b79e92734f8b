"""A body of image and vector in Stable-Baselines3: trained for a minute, PPO catches the ball in 9 of 10 games."""

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from tesserl_nn_components import ConcatFusion, Conv2dHead, VectorEncoder

ROWS, COLUMNS = 10, 7


class Catch(gym.Env):
    """A ball falls one row per step; the paddle moves left, stays or moves right. The image shows the ball only."""

    def __init__(self) -> None:
        image, place = spaces.Box(0, 255, (1, ROWS, COLUMNS), np.uint8), spaces.Box(-1, 1, (1,), np.float32)
        self.observation_space = spaces.Dict({"pixels": image, "observation": place})
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):  # noqa: ARG002 - Gymnasium's interface
        """Begin at the top, over a random column."""
        super().reset(seed=seed)
        self.row, self.column, self.paddle = 0, int(self.np_random.integers(COLUMNS)), COLUMNS // 2
        return self._seen(), {}

    def step(self, action):
        """Move paddle and ball."""
        self.paddle = int(np.clip(self.paddle + int(action) - 1, 0, COLUMNS - 1))
        self.row += 1
        over = self.row == ROWS - 1
        return self._seen(), float(over and self.paddle == self.column), over, False, {}

    def _seen(self):
        image = np.zeros((1, ROWS, COLUMNS), np.uint8)
        image[0, self.row, self.column] = 255
        place = np.array([2 * self.paddle / (COLUMNS - 1) - 1], np.float32)
        return {"pixels": image, "observation": place}


class Body(BaseFeaturesExtractor):
    """Wraps any body of Tesserl: pass the entries of its in_keys; SB3 has divided the images by 255."""

    def __init__(self, observation_space: spaces.Dict, body: torch.nn.Module) -> None:
        super().__init__(observation_space, body.out_features)
        self.body = body

    def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the features of a batch."""
        return self.body(*(observations[key] for key in self.body.in_keys))


torch.manual_seed(1)
vision = Conv2dHead((1, ROWS, COLUMNS), channels=[16], kernel_sizes=[3], strides=[1], hidden_sizes=[64])
body = ConcatFusion(vision=vision, vector=VectorEncoder(1, hidden_sizes=[16]))
policy = {"features_extractor_class": Body, "features_extractor_kwargs": {"body": body}, "net_arch": []}
model = PPO(
    "MultiInputPolicy", make_vec_env(Catch, 8, seed=1), n_steps=64, batch_size=128, learning_rate=2e-3, seed=1,
    policy_kwargs=policy, device="cpu",
)  # fmt: skip
model.learn(50_000)
caught, _ = evaluate_policy(model, make_vec_env(Catch, 1, seed=1_000), n_eval_episodes=100)
print(f"SB3's PPO with a body of nn-components: {caught:.2f} of the balls caught")
if caught < 0.9:
    raise SystemExit("expected at least 0.9 of the balls to be caught")
