"""Play evaluations on rank 0 and share the results with all ranks."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from tesserl_collectors.evaluation import Evaluation
from tesserl_ranks.group import Ranks


class Playing(Protocol):
    """The methods of a `training.evaluations.Player` that rank 0 calls."""

    def begin(self, weights: Mapping[str, Tensor] | None = None) -> None:
        """Start an evaluation."""

    def result(self) -> Evaluation:
        """Return the result."""

    def weights(self) -> dict[str, Tensor]:
        """Return the weights that are being evaluated."""

    def look(self) -> None:
        """Raise the error of a failed evaluation."""


class SharedPlayer:
    """Plays on rank 0; the other ranks wait for the result.

    Args:
        ranks: ranks that train together.
        player: player of rank 0; None on the other ranks.
        in_background: whether training continues during an evaluation.
    """

    def __init__(self, ranks: Ranks, player: Playing | None, *, in_background: bool) -> None:
        self.ranks, self.player, self.in_background = ranks, player, in_background

    def begin(self, weights: Mapping[str, Tensor] | None = None) -> None:
        """Start an evaluation of these weights; None takes the network's current ones."""
        self.ranks.by_first(lambda: self._playing.begin(weights), "evaluating")

    def result(self) -> Evaluation:
        """Wait for the result of rank 0 and return it."""

        def lists() -> dict[str, list[float]]:
            found = self._playing.result()
            return {"returns": found.returns, "lengths": list(found.lengths)}

        result = self.ranks.by_first(lists, "evaluating")
        return Evaluation(result["returns"], [int(length) for length in result["lengths"]])

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights that are being evaluated; empty on ranks other than 0."""
        return {} if self.player is None else self.player.weights()

    def look(self) -> None:
        """On rank 0, raise the error of a failed evaluation; the other ranks get it when they next wait."""
        if self.player is not None:
            self.player.look()

    @property
    def _playing(self) -> Playing:
        if self.player is None:
            raise RuntimeError("only rank 0 plays; call by_first on all ranks")
        return self.player
