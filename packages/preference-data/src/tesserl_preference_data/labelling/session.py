"""A labelling session: the pairs to judge, their clips on the page, and the answers."""

import base64
import threading
import zlib
from pathlib import Path
from typing import Any, Literal

import torch

from tesserl_preference_data import StoreError, append_label, load_pairs, read_labels
from tesserl_preference_data.pictures import frame_png

Side = Literal["left", "right"]
Answer = Literal["left", "right", "tie", "skip"]
ANSWERS: tuple[Answer, ...] = ("left", "right", "tie", "skip")

UNDONE = ", undone"
"""Suffix of the judge's name in an undone answer: the pair has no label and will be asked again."""

MAX_FRAMES = 1000
"""Largest number of pictures of a clip; longer clips are subsampled evenly."""


class LabellingSession:
    """Show the pairs of a store to one person, one after the other, and store the answers.

    Each answer is on disk before the next pair is shown, so no answer is lost if the session ends. A new session
    continues with the pairs that have no answer. The segment on the left is drawn at random once per pair, so that the
    sides do not reveal existing labels.

    Args:
        path: directory of the pairs; their steps must have pictures.
        name: name of the judge.

    Raises:
        StoreError: the store cannot be read, or has no pictures.
        ValueError: the name is empty, or has the suffix of an undone answer.
    """

    def __init__(self, path: str | Path, *, name: str = "person") -> None:
        if not name or name.endswith(UNDONE):
            raise ValueError(f"the name of who judges must not be empty or end with {UNDONE!r}, got {name!r}")
        self.path, self.name = Path(path), name
        pairs = load_pairs(path, unlabelled=True)
        if ("extra", "frame") not in pairs.pool.keys:
            raise StoreError(
                f"{path} has no pictures to show; collect episodes with --frames, and make pairs of them alone"
            )
        # pairs in the order of the file: loading with labels of people may swap the segments of a pair
        labels = read_labels(path)
        swapped = torch.zeros(len(pairs), dtype=torch.bool)
        swapped[[pair for pair, (choice, _) in labels.items() if choice == "second"]] = True
        self._segments = torch.stack(
            [
                torch.where(swapped, pairs.rejected_segment, pairs.chosen_segment),
                torch.where(swapped, pairs.chosen_segment, pairs.rejected_segment),
            ],
            dim=1,
        )
        self._pool = pairs.pool
        self._answers: dict[int, Answer] = {}  # in the order of the answers
        for pair, (choice, source) in labels.items():
            if not source.endswith(UNDONE):
                self._answers[pair] = self._translate(pair, choice)
        self._again: list[int] = []  # undone answers; the last one is asked first
        self._lock = threading.Lock()

    def state(self) -> dict[str, Any]:
        """Return ``total``, ``judged``, ``counts`` of answers and ``next``, the pair to ask (or None)."""
        with self._lock:
            counts = {answer: list(self._answers.values()).count(answer) for answer in ANSWERS}
            return {
                "total": len(self._segments),
                "judged": len(self._answers),
                "counts": counts,
                "next": self._next(),
            }

    def pair(self, number: int) -> dict[str, Any]:
        """Return a pair for the page: for each side ``length`` in steps and ``frames``, PNG files in base64.

        Args:
            number: number of the pair.

        Raises:
            ValueError: there is no such pair.
        """
        self._check(number)
        left, right = self._segments[number].tolist()[:: -1 if self._is_flipped(number) else 1]
        return {"pair": number, "left": self._clip(left), "right": self._clip(right)}

    def answer(self, number: int, answer: Answer) -> None:
        """Append an answer to the labels; it is on disk when this returns.

        Args:
            number: number of the pair.
            answer: the better side, ``"tie"`` or ``"skip"``.

        Raises:
            InUseError: another process still writes a label after ten seconds.
            OSError: the answer cannot be written, for example on a full disk; the pair keeps its previous answer.
            ValueError: there is no such pair or answer.
        """
        self._check(number)
        if answer not in ANSWERS:
            raise ValueError(f"an answer must be one of {', '.join(ANSWERS)}, got {answer!r}")
        with self._lock:
            append_label(self.path, number, self._translate(number, answer), source=self.name)
            self._answers.pop(number, None)
            self._answers[number] = answer
            self._again = [each for each in self._again if each != number]

    def undo(self) -> int | None:
        """Undo the last answer and ask about that pair next.

        Returns:
            The pair; None if there is no answer.

        Raises:
            InUseError: see ``answer``.
            OSError: see ``answer``.
        """
        with self._lock:
            if not self._answers:
                return None
            number = next(reversed(self._answers))
            append_label(self.path, number, "skip", source=self.name + UNDONE)
            del self._answers[number]
            self._again.append(number)
            return number

    def _next(self) -> int | None:
        if self._again:
            return self._again[-1]
        return next((pair for pair in range(len(self._segments)) if pair not in self._answers), None)

    def _check(self, number: Any) -> None:
        if type(number) is not int or not 0 <= number < len(self._segments):
            raise ValueError(f"a pair must be in [0, {len(self._segments)}), got {number!r}")

    def _clip(self, segment: int) -> dict[str, Any]:
        frames = self._pool.segment(segment)["extra", "frame"]
        length = len(frames)
        shown = range(length)
        if length > MAX_FRAMES:
            shown = range(0, length, -(-length // MAX_FRAMES))
        pictures = [base64.b64encode(frame_png(frames[step])).decode("ascii") for step in shown]
        return {"length": length, "every": shown.step, "frames": pictures}

    @staticmethod
    def _is_flipped(pair: int) -> bool:
        """Return whether a pair's second segment is on the left; drawn once per pair."""
        return bool(zlib.crc32(f"pair {pair}".encode()) & 1)

    def _translate(self, pair: int, choice: Any) -> Any:
        """Translate a side to its segment, or a segment to its side; return anything else unchanged."""
        names = ["second", "first"] if self._is_flipped(pair) else ["first", "second"]
        table = {"left": names[0], "right": names[1], names[0]: "left", names[1]: "right"}
        return table.get(choice, choice)
