"""Code that runs in the evaluation process: its environments, its copy of the policy, and its answers."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from gymnasium.vector.utils import CloudpickleWrapper

from tesserl_collectors.evaluation_process import EVALUATE
from tesserl_collectors.shared_memory import SharedWeights
from tesserl_environments import close
from tesserl_storage.generators import seed_generators
from tesserl_trainer.algorithms.received_config import received_config
from tesserl_trainer.algorithms.task import Task


class EvaluationWorker:
    """Plays the evaluation episodes, on the device and with the threads of the run."""

    def __init__(
        self,
        data: Mapping[str, Any],
        weights: SharedWeights,
        maker: CloudpickleWrapper | None,
        worker: int,  # noqa: ARG002
        life: int,  # noqa: ARG002
        report: Callable[[], None],
    ) -> None:
        config = received_config(data, maker)
        torch.set_num_threads(config.num_threads)
        seed_generators(config.seed)
        self._task, self._weights, self._report = Task(config), weights, report
        self._environments = self._task.evaluation_environments()
        self._actor = self._task.actor()

    def answer(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the result of an evaluation."""
        if name != EVALUATE:
            raise ValueError(f"the evaluation process answers {EVALUATE}, got {name}")
        self._weights.load(self._actor.policy.network.state_dict(), arguments["version"])
        with self._actor.policy.greedy() as policy:
            result = self._task.evaluate(policy, self._environments, on_step=self._report)
        return {"returns": result.returns, "lengths": result.lengths}

    def close(self) -> None:
        """Close the environments."""
        close(self._environments, failed=False)
