"""Tasks in which some actions are not allowed; they raise an error if one is taken anyway."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces

ACTIONS = {
    "single": spaces.Discrete(6),
    "blocks": spaces.MultiDiscrete([3, 3]),
    "choices": spaces.MultiDiscrete([2, 4]),
}


class Safe(gym.Env):
    """A safe with a lock: in each of 8 steps the only good one of the allowed actions opens it further.

    Each state allows two options of every choice, of which the first one is good (reward 1). The last state of an
    episode allows nothing.

    Args:
        actions: one of ``ACTIONS``.
        told: where the mask is: ``"observation"`` or ``"info"``.
        forbids: ``"some"``, or ``"all"``: the third state allows nothing.
        shows: whether the step is seen as a ``"vector"`` or as a ``"picture"``.
    """

    def __init__(
        self, actions: str = "single", told: str = "observation", forbids: str = "some", shows: str = "vector"
    ) -> None:
        self.action_space = ACTIONS[actions]
        space = self.action_space
        self._nvec = np.atleast_1d(space.n if isinstance(space, spaces.Discrete) else space.nvec)
        self.told, self.forbids, self.shows, self.t = told, forbids, shows, 0
        places = spaces.Box(0, 1, (9,), np.float32) if shows == "vector" else spaces.Box(0, 255, (9, 9, 1), np.uint8)
        entries = {"place": places, "action_mask": spaces.MultiBinary(int(self._nvec.sum()))}
        self.observation_space = spaces.Dict(entries) if told == "observation" else places

    def allowed(self) -> list[np.ndarray]:
        """Return the mask of each choice."""
        masks = [np.zeros(n, np.int8) for n in self._nvec]
        if self.t < 8 and not (self.forbids == "all" and self.t == 2):
            for mask, n in zip(masks, self._nvec, strict=True):
                mask[[(2 * self.t + self.offset) % n, (2 * self.t + self.offset + 1) % n]] = 1
        return masks

    def _seen(self):
        place, mask = np.eye(9, dtype=np.float32)[self.t], np.concatenate(self.allowed())
        if self.shows == "picture":
            place = np.full((9, 9, 1), 28 * self.t, np.uint8)
        if self.told == "info":
            return place, {"action_mask": mask}
        return {"place": place, "action_mask": mask}, {}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.offset = 0, int(self.np_random.integers(2))
        return self._seen()

    def step(self, action):
        chosen, masks = np.atleast_1d(action), self.allowed()
        if not all(mask[option] for mask, option in zip(masks, chosen, strict=True)):
            raise RuntimeError(f"action {chosen.tolist()} is forbidden in step {self.t}")
        reward = float(np.mean([option % 2 == 0 for option in chosen]))
        self.t += 1
        observation, info = self._seen()
        return observation, reward, self.t == 8, False, info


if "tesserl-tests/Safe-v0" not in gym.registry:  # workers of collectors import the module by another name
    gym.register("tesserl-tests/Safe-v0", Safe, max_episode_steps=20)
