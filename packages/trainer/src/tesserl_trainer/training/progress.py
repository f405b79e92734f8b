"""Progress of a run: a live bar on a terminal, plain lines elsewhere."""

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class ProgressDisplay:
    """Shows steps, return, updates per second and the remaining time on standard error.

    Args:
        total_steps: environment steps of the whole run.
        first_step: steps that a resumed run has behind it.
    """

    def __init__(self, total_steps: int, first_step: int = 0) -> None:
        self._console = Console(file=sys.stderr, highlight=False)
        self._total_steps = total_steps
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("steps"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("", total=total_steps, completed=first_step)

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
        """Move the bar; does nothing if there is none."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step)

    def report(self, step: int, mean_return: float | None, steps_per_second: float, updates_per_second: float) -> None:
        """Show the figures of one logging interval.

        Args:
            step: environment steps so far.
            mean_return: of the training episodes that ended since the last report; ``None`` where none did.
            steps_per_second: environment steps.
            updates_per_second: gradient updates.
        """
        shown = "-" if mean_return is None else f"{mean_return:.1f}"
        if self._bar is not None and self._task is not None:
            text = f"return {shown}  {steps_per_second:,.0f} steps/s  {updates_per_second:,.0f} updates/s"
            self._bar.update(self._task, completed=step, description=text)
            return
        eta = max(self._total_steps - step, 0) / max(steps_per_second, 1e-9)
        self.note(
            f"step {step:,}/{self._total_steps:,}  return {shown}  {steps_per_second:,.0f} steps/s  "
            f"{updates_per_second:,.0f} updates/s  ETA {eta:,.0f} s"
        )

    def note(self, text: str) -> None:
        """Print one line, above the bar if there is one."""
        self._console.print(text, markup=False, soft_wrap=True)
