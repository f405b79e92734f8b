"""Measure rounds of peer, ours, peer: the median ratio, and as a check the ratio of the peer to itself."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

RESULTS = Path(__file__).parents[1] / "results"


@dataclass(frozen=True)
class Measurement:
    """Work done, in units of the benchmark, and its seconds of wall time and of processor time."""

    count: float
    wall: float
    cpu: float


Side = Callable[[], Measurement]


def repeat(function: Callable[[], object], count: int) -> Measurement:
    """Measure ``count`` calls of a function."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        function()
    return Measurement(count, time.perf_counter() - wall, time.process_time() - cpu)


def repeated(function: Callable[[], object], seconds: float) -> Side:
    """Return a side that repeats a function for about ``seconds``; a warm-up run determines the number of calls."""
    repeat(function, 3)
    trial = repeat(function, 5)
    count = max(1, round(seconds * trial.count / trial.wall))
    return lambda: repeat(function, count)


@dataclass(frozen=True)
class Bar:
    """A bound on a ratio: ``cost`` is our time divided by the peer's, ``speed`` our rate divided by the peer's."""

    kind: Literal["cost", "speed"]
    limit: float | None = None

    def holds(self, ratio: float) -> bool:
        if self.limit is None:
            return True
        return ratio <= self.limit if self.kind == "cost" else ratio >= self.limit

    def __str__(self) -> str:
        if self.limit is None:
            return self.kind
        return f"{self.kind} {'<=' if self.kind == 'cost' else '>='} {self.limit:g}"


@dataclass(frozen=True)
class Comparison:
    """One row of a benchmark."""

    name: str
    bar: str
    ratio: float  # median over the rounds, by wall time
    ratio_low: float  # quartiles
    ratio_high: float
    ratio_cpu: float  # by processor time, which other processes affect less
    ratio_cpu_low: float
    ratio_cpu_high: float
    itself: float  # the peer after ours relative to the peer before ours: 1 on an idle machine
    ours: float  # median rate, per second of wall time
    peer: float
    ours_cpu: float  # the same, per second of processor time
    peer_cpu: float
    rounds: int
    holds: bool

    def line(self) -> str:
        spread = f"{self.ratio_low:.3f} to {self.ratio_high:.3f}"
        return (
            f"{self.name:<44} {self.ratio:7.3f}  {spread:>16}  {self.ratio_cpu:7.3f}  {self.itself:7.3f}"
            f"  {self.ours:10.1f}  {self.peer:10.1f}  {self.bar} {'' if self.holds else 'MISSED'}"
        )

    def line_cpu(self) -> str:
        return (
            f"  by processor time: {self.ratio_cpu:.3f} ({self.ratio_cpu_low:.3f} to {self.ratio_cpu_high:.3f});"
            f" rates: ours {self.ours_cpu:.0f}, peer {self.peer_cpu:.0f}"
        )


HEADER = (
    f"{'':<44} {'ratio':>7}  {'quartiles':>16}  {'by CPU':>7}  {'itself':>7}  {'ours /s':>10}  {'peer /s':>10}  bar"
)


def compare(name: str, peer: Side, ours: Side, bar: Bar, *, rounds: int) -> Comparison:
    """Measure rounds of peer, ours, peer; print and return the row."""
    ratios, ratios_cpu, itself, our_rates, peer_rates, our_rates_cpu, peer_rates_cpu = [], [], [], [], [], [], []
    for _ in range(rounds):
        before, own, after = peer(), ours(), peer()
        peer_wall = (before.wall / before.count + after.wall / after.count) / 2
        peer_cpu = (before.cpu / before.count + after.cpu / after.count) / 2
        cost, cost_cpu = own.wall / own.count / peer_wall, own.cpu / own.count / peer_cpu
        ratios.append(cost if bar.kind == "cost" else 1 / cost)
        ratios_cpu.append(cost_cpu if bar.kind == "cost" else 1 / cost_cpu)
        itself.append(after.wall / after.count * before.count / before.wall)
        our_rates.append(own.count / own.wall)
        peer_rates.append(1 / peer_wall)
        our_rates_cpu.append(own.count / own.cpu)
        peer_rates_cpu.append(1 / peer_cpu)
    low, ratio, high = quartiles(ratios)
    low_cpu, ratio_cpu, high_cpu = quartiles(ratios_cpu)
    result = Comparison(
        name=name,
        bar=str(bar),
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        ratio_cpu=ratio_cpu,
        ratio_cpu_low=low_cpu,
        ratio_cpu_high=high_cpu,
        itself=statistics.median(itself),
        ours=statistics.median(our_rates),
        peer=statistics.median(peer_rates),
        ours_cpu=statistics.median(our_rates_cpu),
        peer_cpu=statistics.median(peer_rates_cpu),
        rounds=rounds,
        holds=bar.holds(ratio),
    )
    print(result.line(), flush=True)
    return result


def quartiles(values: list[float]) -> list[float]:
    """Return the lower quartile, the median and the upper quartile; of one value, the value itself."""
    return statistics.quantiles(values, n=4) if len(values) > 1 else values * 3


def arguments(description: str, *, seconds: float) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=11, help="rounds of peer, ours, peer (default 11)")
    parser.add_argument("--seconds", type=float, default=seconds, help=f"length of one measurement ({seconds:g})")
    return parser


def finish(benchmark: str, comparisons: list[Comparison], **extra: object) -> None:
    """Write ``results/<benchmark>.json``; exit with an error if a bar was missed."""
    RESULTS.mkdir(exist_ok=True)
    record = {
        "benchmark": benchmark,
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"processor": processor(), "cores": os.cpu_count(), "load": os.getloadavg()},
        "python": platform.python_version(),
        "comparisons": [asdict(comparison) for comparison in comparisons],
        **extra,
    }
    path = RESULTS / f"{benchmark}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {path}")
    missed = [comparison.name for comparison in comparisons if not comparison.holds]
    if missed:
        sys.exit(f"missed: {', '.join(missed)}")


def processor() -> str:
    """Return the name of the processor, if the system reports it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


class Worker:
    """A side in a separate process, perhaps of another Python environment; requests and answers are lines of JSON.

    It waits while other sides are measured. ``python`` is the interpreter, ``script`` a file of ``workers/``.
    """

    def __init__(self, script: str, settings: dict[str, object], *, python: str = sys.executable) -> None:
        path = Path(__file__).parents[1] / "workers" / script
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "RL_WARNINGS": "False"}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by __exit__)
        self._process = subprocess.Popen(
            [python, str(path), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )
        self._answer()

    def ask(self, request: object) -> dict[str, float]:
        """Send a request and wait for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def measure(self, request: object) -> Measurement:
        """Send a request; return the answer as a measurement."""
        return Measurement(**self.ask(request))

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):  # libraries print too
                return json.loads(line)
        code = self._process.wait()
        self._errors.seek(0)
        raise RuntimeError(f"{self._process.args} ended with exit code {code}:\n{self._errors.read()[-2000:]}")

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._errors.close()
