"""A task that shows pictures; as a program, ``tesserl train`` for a configuration with this task.

python pictures.py CONFIG RUN_DIR
"""

import sys
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from tesserl_trainer.cli import main


class Pictures(gym.Env):
    """A dot on a picture that is not square; an episode ends by chance, or after nine steps.

    Args:
        scale: what the picture of 12 x 9 pixels is enlarged by.
        noise: whether every picture is another one.
    """

    def __init__(self, scale: int = 1, noise: bool = False) -> None:
        self.scale, self.noise = scale, noise
        self.observation_space = spaces.Box(0, 255, (12 * scale, 9 * scale, 1), np.uint8)
        self.action_space = spaces.Discrete(3)

    def _picture(self) -> np.ndarray:
        picture = np.zeros((12, 9, 1), np.uint8)
        picture[self.place, self.t % 9] = 255
        picture = picture.repeat(self.scale, 0).repeat(self.scale, 1)
        if self.noise:
            picture[:8, :8, 0] = self.np_random.integers(256, size=(8, 8))
        return picture

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.t, self.place = 0, int(self.np_random.integers(12))
        return self._picture(), {}

    def step(self, action: int):
        self.t += 1
        self.place = (self.place + int(action) - 1) % 12
        return self._picture(), float(self.place == 3), bool(self.np_random.random() < 0.1), self.t >= 9, {}


gym.register("Pictures-v0", Pictures)

if __name__ == "__main__":
    sys.exit(main(["train", sys.argv[1], "--run-dir", sys.argv[2]]))
