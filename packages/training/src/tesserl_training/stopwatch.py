"""Stopwatch of the activities of a run, and its rates."""

import time


class Laps:
    """Stopwatch that adds each lap to the activity that just ended.

    On a GPU work is booked to whatever waits for it.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Books the time since the last lap."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    def __str__(self) -> str:
        """Shares of the whole, the largest first."""
        whole = max(sum(self.seconds.values()), 1e-9)
        parts = sorted(self.seconds.items(), key=lambda part: -part[1])
        return ", ".join(f"{name} {100 * seconds / whole:.0f} %" for name, seconds in parts)


class Rate:
    """Steps and updates per second, evaluations left out."""

    def __init__(self, step: int = 0, updates: int = 0) -> None:
        self._then = (time.perf_counter(), step, updates)

    def pop(self, step: int, updates: int) -> tuple[float, float]:
        """Return the rates since the last call."""
        now, (then, old_step, old_updates) = time.perf_counter(), self._then
        self._then = (now, step, updates)
        seconds = max(now - then, 1e-9)
        return (step - old_step) / seconds, (updates - old_updates) / seconds

    def leave_out(self, seconds: float) -> None:
        """Leave seconds out of the next rates."""
        then, step, updates = self._then
        self._then = (then + seconds, step, updates)
