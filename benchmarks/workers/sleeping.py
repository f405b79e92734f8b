"""CartPole whose every step waits for 5 ms, as a simulator or a game in real time does."""

import time

import gymnasium as gym

SECONDS = 0.005


class Sleeping(gym.Wrapper):
    """Waits before each step."""

    def __init__(self) -> None:
        super().__init__(gym.make("CartPole-v1"))

    def step(self, action):
        time.sleep(SECONDS)
        return self.env.step(action)


gym.register("Sleeping-v0", entry_point=Sleeping)
