"""A task that needs a picture and a vector: the picture shows where stones lie, the vector which one is wanted."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

COLOURS = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)  # red, blue
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # up, down, left, right


class FindColour(gym.Env):
    """A red and a blue stone lie on a board; the first one that is reached ends the episode.

    ``board`` is a picture with a pixel for each field (the player is white), ``wanted`` has a 1 at the wanted colour.
    The wanted stone is worth 1, the other -1: a player who sees the board or the colour alone gets 0 on average.

    Args:
        size: fields of a side.
    """

    def __init__(self, size: int = 5) -> None:
        self.size = size
        board = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.observation_space = spaces.Dict({"board": board, "wanted": spaces.Box(0, 1, (len(COLOURS),), np.float32)})
        self.action_space = spaces.Discrete(len(MOVES))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):  # noqa: ARG002
        """Lay the stones, place the player and draw the wanted colour."""
        super().reset(seed=seed)
        fields = self.np_random.choice(self.size**2, len(COLOURS) + 1, replace=False)
        self.player, *self.stones = [divmod(int(field), self.size) for field in fields]
        self.wanted = int(self.np_random.integers(len(COLOURS)))
        return self._seen(), {}

    def step(self, action: int):
        """Move by a field; a border stops the player."""
        row, column = (min(max(at + by, 0), self.size - 1) for at, by in zip(self.player, MOVES[action], strict=True))
        self.player = (row, column)
        reached = self.player in self.stones
        right = reached and self.stones.index(self.player) == self.wanted
        return self._seen(), float(right) - float(reached and not right), reached, False, {}

    def _seen(self) -> dict[str, np.ndarray]:
        board = np.zeros((self.size, self.size, 3), np.uint8)
        for stone, colour in zip(self.stones, COLOURS, strict=True):
            board[stone] = colour
        board[self.player] = 255
        return {"board": board, "wanted": np.eye(len(COLOURS), dtype=np.float32)[self.wanted]}


gym.register("FindColour-v0", entry_point=FindColour, max_episode_steps=20)
