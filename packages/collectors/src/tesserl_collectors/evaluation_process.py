"""Evaluations in a process of their own, while training goes on."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from tesserl_collectors.evaluation import Evaluation
from tesserl_collectors.shared_memory import SharedWeights
from tesserl_collectors.supervisor import Supervisor
from tesserl_collectors.transport import Question

Check = Callable[[nn.Module, Mapping[str, Tensor], str], None]
"""Refuses weights that are not those of a network; the text names their source."""

EVALUATE = "evaluate"
"""The question that the process answers."""


def evaluation_name(_: int) -> str:
    """Return the name of the process in messages."""
    return "the evaluation process"


class EvaluationProcess:
    """Plays the evaluation episodes in another process, which has a copy of the weights.

    Args:
        supervisor: of the one process.
        weights: shared with it.
        network: of the learner; its state dict is evaluated.
        check: refuses other weights than those of the network, if some are given.
    """

    in_background = True

    def __init__(self, supervisor: Supervisor, weights: SharedWeights, network: nn.Module, check: Check) -> None:
        self._supervisor, self._weights, self._network, self._check = supervisor, weights, network, check
        self._version = 0

    def begin(self, weights: Mapping[str, Tensor] | None = None) -> None:
        """Begin to play with these weights, or with the present ones of the network; wait for the process to start.

        Args:
            weights: the network's tensors; None: as they are.

        Raises:
            Exception: the error of ``check``; or the one that the process raised.
            WorkerError: the process died, or did not start in time.
        """
        if weights is not None:
            self._check(self._network, weights, "state: evaluation.weights")
        self._supervisor.wait_until_ready()
        self._version += 1
        self._weights.publish(self._network.state_dict() if weights is None else weights, self._version)
        self._supervisor.ask(0, EVALUATE, {"version": self._version}, version=self._version)

    def result(self) -> Evaluation:
        """Return the result of the evaluation that was begun; wait for it.

        Raises:
            WorkerError: the process died, or made no step in time.
            Exception: the error that it raised.
        """
        (answer,) = self._supervisor.answers()
        return Evaluation(answer["returns"], answer["lengths"])

    def look(self) -> None:
        """Raise the error of the process if it has failed; a result that has come is kept for ``result``.

        Raises:
            WorkerError: the process died, did not start in time, or made no step in time.
            Exception: the error that it raised.
        """
        self._supervisor.receive(0.0)

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights that are being evaluated."""
        return self._weights.copied()


def check_evaluation(_: Question, content: Any) -> str | None:
    """Return what is wrong with an answer; None if nothing is."""
    found = isinstance(content, dict) and all(isinstance(content.get(name), list) for name in ("returns", "lengths"))
    return None if found and content["returns"] else "answered with something else than an evaluation"
