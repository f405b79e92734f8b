"""Progress of a run: a live bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

SECONDS = 10.0
"""Least seconds between two lines about an evaluation, if there is no bar."""


class ProgressDisplay:
    """Shows steps, return, updates per second and the remaining time on standard error.

    Args:
        total_steps: environment steps of the whole run.
        first_step: steps done before a resume.
        quiet: show nothing; for ranks other than 0.
    """

    def __init__(self, total_steps: int, first_step: int = 0, *, quiet: bool = False) -> None:
        self._console = Console(file=sys.stderr, highlight=False, quiet=quiet)
        self._total_steps = total_steps
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._trained: float | None = None  # the last known returns of training and evaluation
        self._evaluated: float | None = None
        if self._console.is_terminal and not quiet:
            self._bar = Progress(
                TextColumn("{task.fields[unit]}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("", total=total_steps, completed=first_step, unit="steps")

    def __enter__(self) -> "ProgressDisplay":
        """Start the bar."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the bar."""
        if self._bar is not None:
            self._bar.stop()

    def advance(self, step: int) -> None:
        """Move the bar, if there is one."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step)

    def report(self, step: int, mean_return: float | None, steps_per_second: float, updates_per_second: float) -> None:
        """Show the figures of one logging interval.

        Args:
            step: environment steps so far.
            mean_return: mean return of the training episodes that ended since the last report; None if none ended.
                Then the last known one is shown, or an evaluation's if there was none.
            steps_per_second: environment steps.
            updates_per_second: gradient updates.
        """
        self.know(trained=mean_return)
        known = self._evaluated if self._trained is None else self._trained
        shown = "-" if known is None else f"{known:.1f}"
        if self._bar is not None and self._task is not None:
            text = f"return {shown}  {steps_per_second:,.0f} steps/s  {updates_per_second:,.0f} updates/s"
            self._bar.update(self._task, completed=step, description=text)
            return
        eta = max(self._total_steps - step, 0) / max(steps_per_second, 1e-9)
        self.note(
            f"step {step:,}/{self._total_steps:,}  return {shown}  {steps_per_second:,.0f} steps/s  "
            f"{updates_per_second:,.0f} updates/s  ETA {eta:,.0f} s"
        )

    def know(self, *, trained: float | None = None, evaluated: float | None = None) -> None:
        """Remember the mean returns of training episodes and of an evaluation; None keeps the last value."""
        self._trained = self._trained if trained is None else trained
        self._evaluated = self._evaluated if evaluated is None else evaluated

    def evaluation(self, title: str, episodes: int) -> Callable[[float], None]:
        """Start showing an evaluation.

        Args:
            title: name of the evaluated weights.
            episodes: number of episodes.

        Returns:
            A function to call with the return of each episode that ends.
        """
        returns: list[float] = []
        task = None if self._bar is None else self._bar.add_task(title, total=episodes, unit="episodes")
        shown = time.monotonic()

        def ended(episode_return: float) -> None:
            nonlocal shown
            returns.append(episode_return)
            text = f"{title}: return {sum(returns) / len(returns):.1f}"
            if self._bar is not None and task is not None:
                self._bar.update(task, completed=len(returns), description=text)
            elif time.monotonic() - shown > SECONDS:
                shown = time.monotonic()
                self.note(f"episode {len(returns):,}/{episodes:,}  {text}")

        return ended

    def note(self, text: str) -> None:
        """Print one line, above the bar if there is one."""
        self._console.print(text, markup=False, soft_wrap=True)
