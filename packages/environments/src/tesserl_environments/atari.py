"""Atari games in ale_py's vector environment, with states that can be saved and restored."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from tesserl_environments.action_record import ActionRecord

RESEED_STEPS = 5_000
"""Steps since a game was last seeded after which its next episode start seeds it again. Restoring replays these
steps, about 2,000 per second. Seeding loads the game again, which takes as long as about 200 steps."""

SEEDS = 2**31
"""Upper bound of seeds: ale_py takes non-negative 32-bit integers."""

Snapshot = dict[str, Any]


class AtariEnvironments(VectorEnv[NDArray[np.uint8], NDArray[Any], NDArray[Any]]):
    """``ale_py.vector_env.AtariVectorEnv`` in SAME_STEP or DISABLED mode, with games whose state can be restored.

    ale_py does not expose the state of its games. But a game is a function of the seed that loaded it and the actions
    since then. So this class seeds and starts the episodes instead of ale_py, and restores a game by replaying its
    actions.

    Observations are ``[N, stack_num, height, width]`` uint8, oldest frame first; black frames fill the stack at the
    start of an episode. With ``grayscale=False`` each frame has three channels. In SAME_STEP mode ``info["final_obs"]``
    is the last observation of every episode that ended, ``[N, ...]``; only rows of ended episodes are meaningful. With
    ``life_loss_info`` a lost life sets ``terminated`` and the game continues; with ``episodic_life`` it starts a new
    episode.

    Args:
        game: name of the ROM, e.g. ``"pong"``.
        num_envs: number of games.
        autoreset_mode: SAME_STEP, or DISABLED: ``reset(options={"reset_mask": ...})`` starts episodes.
        **options: arguments of ``AtariVectorEnv``.
    """

    def __init__(self, game: str, num_envs: int, *, autoreset_mode: AutoresetMode, **options: Any) -> None:
        from ale_py.vector_env import AtariVectorEnv  # optional dependency

        # in NEXT_STEP mode ale_py does not reset a finished game before the next step, so it can be seeded here
        self._games = AtariVectorEnv(game, num_envs, autoreset_mode=AutoresetMode.NEXT_STEP, **options)
        self._mode = autoreset_mode
        self._lives_end_episodes_only = bool(options.get("life_loss_info")) and not options.get("episodic_life")
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": autoreset_mode}
        shape: tuple[int, ...] = self._games.single_observation_space.shape
        stack, height, width, *colors = shape
        self.single_observation_space = spaces.Box(0, 255, (3 * stack if colors else stack, height, width), np.uint8)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.single_action_space, self.action_space = self._games.single_action_space, self._games.action_space
        self._everyone = np.ones(num_envs, np.bool_)
        self._generators = [np.random.default_rng() for _ in range(num_envs)]
        self._seeds = np.zeros(num_envs, np.int64)  # seeds that loaded the games
        self._actions = [ActionRecord() for _ in range(num_envs)]  # actions since then
        self._lives = np.zeros(num_envs, np.int64)
        self._observation: NDArray[np.uint8] = np.zeros(0, np.uint8)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Load games and start an episode in each.

        Args:
            seed: one seed per environment, or the first of consecutive seeds; ``None`` draws them.
            options: ``reset_mask``, bool ``[N]``: environments to reset; all of them by default.

        Returns:
            The observations of all environments, and ale_py's information.
        """
        mask = (options or {}).get("reset_mask", self._everyone)
        given: Sequence[int | None] = [None] * self.num_envs if seed is None else seed  # type: ignore[assignment]
        if isinstance(seed, int):
            given = range(seed, seed + self.num_envs)
        for i in np.flatnonzero(mask).tolist():
            if given[i] is not None:
                self._generators[i] = np.random.default_rng(given[i])
            self._seeds[i] = self._generators[i].integers(SEEDS) if given[i] is None else given[i] % SEEDS
            self._actions[i].clear()
        return self._start(mask, self._seeds[mask])

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Take one action in every game; in SAME_STEP mode, games that ended start a new episode."""
        frames, reward, terminated, truncated, info = self._games.step(actions)
        for taken, action in zip(self._actions, actions, strict=True):
            taken.append(action)
        self._observation = self._channels_first(frames)
        over = terminated | truncated
        if self._lives_end_episodes_only:
            over &= ~((info["lives"] < self._lives) & (info["lives"] > 0))
        self._lives = info["lives"]
        if self._mode is AutoresetMode.SAME_STEP and (terminated | truncated).any():
            info = {**info, "final_obs": self._observation}
            if over.any():
                self._start(over, self._due_seeds(over))
        return self._observation, reward, terminated, truncated, info

    def _due_seeds(self, over: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return a new seed for each game that needs one, and -1 for others: ale_py continues their generators."""
        seeds = []
        for i in np.flatnonzero(over).tolist():
            if len(self._actions[i]) >= RESEED_STEPS or not self._actions[i].is_complete:
                self._seeds[i] = self._generators[i].integers(SEEDS)
                self._actions[i].clear()
            seeds.append(-1 if self._actions[i] else self._seeds[i])
        return np.array(seeds)

    def _start(self, mask: NDArray[np.bool_], seeds: NDArray[np.int64]) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        frames, info = self._games.reset(seed=seeds, options={"reset_mask": mask})
        self._observation, self._lives = self._channels_first(frames), info["lives"]
        return self._observation, info

    def _channels_first(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """``[N, stack, H, W]``, or ``[N, stack, H, W, 3]`` with three channels for each frame."""
        if frames.ndim == 4:
            return frames
        return np.moveaxis(frames, -1, 2).reshape(len(frames), -1, *frames.shape[2:4])

    def snapshot(self) -> list[Snapshot]:
        """Return the seed and actions that led to each game's state, as JSON data; ``actions`` is None if too many."""
        return [
            {
                "seed": int(self._seeds[i]),
                "actions": self._actions[i].plain(),
                "generator": self._generators[i].bit_generator.state,
                "observation": hashlib.sha256(self._observation[i].tobytes()).hexdigest(),
            }
            for i in range(self.num_envs)
        ]

    def restore(self, snapshots: Sequence[Snapshot]) -> bool:
        """Replay all games up to their saved states; longer games start earlier, so that all end together.

        Returns:
            Whether the observations are the saved ones.
        """
        actions = np.zeros_like(self.action_space.sample())
        histories = [np.array(snapshot["actions"], actions.dtype) for snapshot in snapshots]
        longest = max(map(len, histories))
        starts = np.array([longest - len(history) for history in histories])
        self.reset()
        for t in range(longest + 1):
            mask = starts == t
            if mask.any():
                self.reset(seed=[snapshot["seed"] for snapshot in snapshots], options={"reset_mask": mask})
            if t < longest:
                for i in np.flatnonzero(starts <= t).tolist():
                    actions[i] = histories[i][t - starts[i]]
                self.step(actions)
        for generator, snapshot in zip(self._generators, snapshots, strict=True):
            generator.bit_generator.state = snapshot["generator"]
        return [now["observation"] for now in self.snapshot()] == [then["observation"] for then in snapshots]
