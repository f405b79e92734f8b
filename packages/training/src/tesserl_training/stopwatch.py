"""Measure the time of a run's activities, and its rates."""

import time


class Laps:
    """Stopwatch that adds each lap to the activity that just ended.

    On a GPU, the time of a kernel counts for the activity that waits for it.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Add the time since the last lap to an activity."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    def __str__(self) -> str:
        """Return each activity's share of the time, the largest first."""
        whole = max(sum(self.seconds.values()), 1e-9)
        parts = sorted(self.seconds.items(), key=lambda part: -part[1])
        return ", ".join(f"{name} {100 * seconds / whole:.0f} %" for name, seconds in parts)


class Rate:
    """Steps and updates per second, without the time of evaluations."""

    def __init__(self, step: int = 0, updates: int = 0) -> None:
        self._then = (time.perf_counter(), step, updates)

    def pop(self, step: int, updates: int) -> tuple[float, float]:
        """Return the rates since the last call."""
        now, (then, old_step, old_updates) = time.perf_counter(), self._then
        self._then = (now, step, updates)
        seconds = max(now - then, 1e-9)
        return (step - old_step) / seconds, (updates - old_updates) / seconds

    def leave_out(self, seconds: float) -> None:
        """Exclude seconds from the next rates."""
        then, step, updates = self._then
        self._then = (then + seconds, step, updates)
