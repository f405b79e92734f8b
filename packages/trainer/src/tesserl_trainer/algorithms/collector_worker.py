"""Code that runs in a collector worker's process: its environments, its copy of the policy, and its answers."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium.vector.utils import CloudpickleWrapper
from torch import Tensor

from tesserl_collectors.batches import arrays_of, entries_of
from tesserl_collectors.groups import GroupCollector
from tesserl_collectors.rollout_policy import RolloutPolicy
from tesserl_collectors.weights import LoadedWeights
from tesserl_collectors.workers import plain, state_of
from tesserl_configs import RunConfig
from tesserl_environments import close, worker_seeds
from tesserl_storage.generators import generators_state, seed_generators, set_generators_state
from tesserl_trainer.algorithms import actor_builder_of
from tesserl_trainer.algorithms.groups import training_environments
from tesserl_trainer.algorithms.received_config import received_config
from tesserl_trainer.algorithms.task import Task


class CollectorWorker:
    """Collects with the environments of one worker, on the CPU.

    Args:
        data: the configuration as plain data.
        num_workers: workers that share the environments.
        weights: weights of the policy.
        maker: function that makes one environment, for a run started from Python; None: the task is registered.
        keyed: give every trajectory of a group its own random stream, so that its result does not depend on the
            worker that plays it.
        worker: index of this worker.
        life: how often this worker's process has been replaced.
        report: called after every step of the environments.
    """

    def __init__(
        self,
        data: Mapping[str, Any],
        num_workers: int,
        weights: LoadedWeights,
        maker: CloudpickleWrapper | None,
        keyed: bool,
        worker: int,
        life: int,
        report: Callable[[], None],
    ) -> None:
        config = received_config(data, maker)
        environment_seed, seed = seeds_of(config.seed, worker, life)
        task = Task(_part_of(config, num_workers))
        self._environments = training_environments(task)
        self._actor = task.actor()
        self._weights = weights
        self._collector = actor_builder_of(config.algorithm).build_collector(task, self._actor, self._environments)
        self._is_keyed = isinstance(self._collector, GroupCollector) and keyed
        if isinstance(self._collector, GroupCollector) and keyed:
            self._collector.key_streams(config.seed)
        stepping = self._collector.collector if isinstance(self._collector, GroupCollector) else self._collector
        stepping.seeds = worker_seeds(environment_seed, self._environments)
        act = stepping.policy

        def act_and_report(*inputs: Tensor) -> Tensor:
            report()
            return act(*inputs)

        stepping.policy = act_and_report
        seed_generators(seed)

    def answer(self, name: str, arguments: dict[str, Any]) -> Any:
        """Return the answer to a question of the learner."""
        match name:
            case "collect":
                return self._collect(**arguments)
            case "snapshot":
                return self._snapshot()
            case "restore":
                return self._restore(**arguments)
            case "restart":
                return self._restart()
        raise ValueError(f"a collector worker answers collect, snapshot, restore and restart, got {name}")

    def close(self) -> None:
        """Close the environments."""
        close(self._environments, failed=False)

    def _collect(
        self, version: int, step: int, generators: Mapping[str, Any] | None, **arguments: int
    ) -> dict[str, Any]:
        """Return the arrays of a round, the episodes that ended, and the random generators if they were lent."""
        if generators is not None:
            set_generators_state(state_of(generators))
        for schedule in self._actor.schedules:
            schedule.apply(schedule.value(step))
        self._weights.load(self._actor.policy.network.state_dict(), version)
        self._collector.set_weights(version, step)
        return {
            "arrays": self._arrays(**arguments),
            "episodes": [[episode.episode_return, episode.length] for episode in self._collector.pop_episodes()],
            "generators": None if generators is None else plain(generators_state(cuda=False)),
        }

    def _arrays(self, **arguments: int) -> dict[str, Any]:
        """Return the arrays of a batch, time first, or of trajectories in groups."""
        if not isinstance(self._collector, GroupCollector):
            batch = self._collector.collect(**arguments)
            return {key: tensor.contiguous().numpy() for key, tensor in entries_of(batch).items()}
        self._collector.starts.next_group = arguments["first"]
        number = arguments["num_groups"]
        return arrays_of(*self._collector.collect(number)) if number else {}

    def _restart(self) -> None:
        if not isinstance(self._collector, GroupCollector):
            self._collector.restart()

    def _snapshot(self) -> dict[str, Any]:
        """Return the state between two rounds; groups keep no state between rounds."""
        if self._is_keyed:
            return plain({})
        policy = self._actor.policy
        memory = policy.state_dict() if isinstance(policy, RolloutPolicy) else {}
        collector = {} if isinstance(self._collector, GroupCollector) else self._collector.snapshot()
        return plain({**collector, "policy": memory, "generators": generators_state(cuda=False)})

    def _restore(self, saved: Mapping[str, Any]) -> bool:
        """Continue from a snapshot; return whether every environment was restored exactly."""
        state, policy = state_of(saved), self._actor.policy
        if self._is_keyed:
            return True
        if isinstance(policy, RolloutPolicy):
            policy.load_state_dict(state["policy"])
        restored = isinstance(self._collector, GroupCollector) or self._collector.restore(state)
        set_generators_state(state["generators"])
        return restored


def seeds_of(seed: int, worker: int, life: int) -> tuple[int, int]:
    """Return the environment seed and the other seed of a worker; worker 0 has the seeds of a run without workers."""
    environments, rest = np.random.SeedSequence(seed, spawn_key=(1, worker, life)).generate_state(2).tolist()
    return (seed if worker == life == 0 else environments), rest


def _part_of(config: RunConfig, num_workers: int) -> RunConfig:
    """Return the configuration of one worker: its share of the environments, on the CPU."""
    environment = config.environment
    part = environment.model_copy(update={"num_envs": environment.num_envs // num_workers})
    return config.model_copy(update={"environment": part, "device": "cpu"})
