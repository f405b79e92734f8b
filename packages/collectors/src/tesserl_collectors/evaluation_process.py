"""Evaluate in a separate process while training continues."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from tesserl_collectors.evaluation import Evaluation
from tesserl_collectors.shared_memory import SharedWeights
from tesserl_collectors.supervisor import Supervisor
from tesserl_collectors.transport import Question

Check = Callable[[nn.Module, Mapping[str, Tensor], str], None]
"""Rejects weights that do not fit a network; the text names their source."""

EVALUATE = "evaluate"
"""Name of the question that the process answers."""


def evaluation_name(_: int) -> str:
    """Return the name of the process for messages."""
    return "the evaluation process"


class EvaluationProcess:
    """Play evaluation episodes in another process with a copy of the weights.

    Args:
        supervisor: supervises the process.
        weights: weights shared with the process.
        network: network of the learner; its state dict is evaluated.
        check: rejects given weights that do not fit the network.
    """

    in_background = True

    def __init__(self, supervisor: Supervisor, weights: SharedWeights, network: nn.Module, check: Check) -> None:
        self._supervisor, self._weights, self._network, self._check = supervisor, weights, network, check
        self._version = 0

    def begin(self, weights: Mapping[str, Tensor] | None = None) -> None:
        """Begin an evaluation of the given or the current weights; wait for the process to start.

        Args:
            weights: state dict to evaluate; None for the current weights of the network.

        Raises:
            Exception: the error of ``check`` or of the process.
            WorkerError: the process died, or did not start in time.
        """
        if weights is not None:
            self._check(self._network, weights, "state: evaluation.weights")
        self._supervisor.wait_until_ready()
        self._version += 1
        self._weights.publish(self._network.state_dict() if weights is None else weights, self._version)
        self._supervisor.ask(0, EVALUATE, {"version": self._version}, version=self._version)

    def result(self) -> Evaluation:
        """Wait for the running evaluation and return its result.

        Raises:
            WorkerError: the process died, or made no step in time.
            Exception: the error of the process.
        """
        (answer,) = self._supervisor.answers()
        return Evaluation(answer["returns"], answer["lengths"])

    def look(self) -> None:
        """Raise the error of the process if it has failed; keep a received result for ``result``.

        Raises:
            WorkerError: the process died, did not start in time, or made no step in time.
            Exception: the error of the process.
        """
        self._supervisor.receive(0.0)

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights under evaluation."""
        return self._weights.copied()


def check_evaluation(_: Question, content: Any) -> str | None:
    """Return a description of an invalid answer; None if it is valid."""
    found = isinstance(content, dict) and all(isinstance(content.get(name), list) for name in ("returns", "lengths"))
    return None if found and content["returns"] else "answered with something else than an evaluation"
