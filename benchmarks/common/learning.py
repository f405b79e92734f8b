"""Learning curves of several seeds: results, difference from a peer, picture."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common.harness import Worker
from tesserl_analysis.record import read_metrics, series
from tesserl_analysis.statistics import Interval, interval, mean

Curve = tuple[list[int], list[float]]  # steps, and the mean return of the evaluation at each


@dataclass(frozen=True)
class Seed:
    """One run: mean returns of the best and of the last weights on unused seeds, the evaluations, seconds."""

    seed: int
    best: float
    last: float
    curve: Curve
    wall: float
    cpu: float


@dataclass
class Learned:
    """One experiment."""

    name: str
    steps: int
    seeds: list[Seed]
    at_least: float | None = None
    peer: list[Seed] = field(default_factory=list)

    @property
    def difference(self) -> Interval | None:
        """Return mean and 95 % interval of (ours - peer's), paired by seed; None if the peer lacks a seed."""
        others = {run.seed: run.best for run in self.peer}
        if not self.seeds or any(run.seed not in others for run in self.seeds):
            return None
        differences = [run.best - others[run.seed] for run in self.seeds]
        return interval([np.array(differences)], mean)

    @property
    def holds(self) -> bool:
        if self.at_least is not None and any(run.best < self.at_least for run in self.seeds):
            return False
        return self.difference is None or self.difference[2] >= 0

    @property
    def bar(self) -> str:
        if self.at_least is not None:
            return f">= {self.at_least:g} on each seed, {'holds' if self.holds else '**missed**'}"
        if self.difference is not None:
            value, low, high = self.difference
            verdict = "holds" if self.holds else "**missed**"
            return f"ours - SB3: {value:+.1f}, 95 % interval {low:+.1f} to {high:+.1f}, {verdict}"
        return "-"

    def row(self) -> str:
        """Return a row of the table with the header ``HEADER``."""
        cells = [
            self.name,
            " ".join(str(run.seed) for run in self.seeds),
            f"{self.steps:,}",
            returns(run.best for run in self.seeds),
            returns(run.last for run in self.seeds),
            returns(run.best for run in self.peer) or "-",
            self.bar,
            f"{np.median([run.wall for run in self.seeds]):.0f} s wall, "
            f"{np.median([run.cpu for run in self.seeds]):.0f} s CPU",
        ]
        return f"| {' | '.join(cells)} |"

    def first(self, target: float) -> list[int | None]:
        """Return the step of each seed's first evaluation that reaches a return."""
        curves = [zip(*run.curve, strict=True) for run in self.seeds]
        return [next((step for step, mean in curve if mean >= target), None) for curve in curves]


HEADER = (
    "| experiment | seeds | steps | return, best checkpoint | last weights | SB3, best | bar | median time |\n"
    "|---|---|---|---|---|---|---|---|"
)


def returns(values: object) -> str:
    return ", ".join(f"{value:.4g}" for value in values)  # type: ignore[attr-defined]


def read_run(run_dir: Path, seed: int) -> Seed:
    """Read the results of a ``tesserl train``."""
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    took = json.loads((run_dir / "took.json").read_text())
    curve = series(read_metrics(run_dir / "metrics.csv"), "evaluation/return")
    return Seed(seed, evaluation["return_mean"], evaluation["last_return_mean"], curve, **took)


def sb3(settings: dict, seeds: list[int], steps: int, record: Path, python: str) -> list[Seed]:
    """Train SB3 with each seed; read finished seeds from ``record``, a file with one line of JSON per seed."""
    lines = record.read_text().splitlines() if record.exists() else []
    answers = {answer["seed"]: answer for answer in map(json.loads, lines)}
    for seed in seeds:
        if seed not in answers:
            with Worker("sb3_ppo.py", {**settings, "seed": seed}, python=python) as worker:
                answers[seed] = {"seed": seed, **worker.ask(steps)}
            record.parent.mkdir(parents=True, exist_ok=True)
            with record.open("a") as file:
                file.write(json.dumps(answers[seed]) + "\n")
    return [
        Seed(
            seed,
            float(np.mean(answers[seed]["returns"])),
            float(np.mean(answers[seed]["last_returns"])),
            tuple(map(list, zip(*answers[seed]["curve"], strict=True))),  # type: ignore[arg-type]
            answers[seed]["wall"],
            answers[seed]["cpu"],
        )
        for seed in seeds
    ]


def draw(learned: Learned, path: Path) -> None:
    """Draw the evaluations of all seeds, and their mean if all were evaluated at the same steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for label, runs, colour in (("SB3", learned.peer, "C1"), ("ours", learned.seeds, "C0")):
        for run in runs:
            axes.plot(*run.curve, color=colour, linewidth=0.8, alpha=0.4)
        if runs and all(run.curve[0] == runs[0].curve[0] for run in runs):
            means = np.mean([run.curve[1] for run in runs], axis=0)
            axes.plot(runs[0].curve[0], means, color=colour, linewidth=2, label=f"{label}, mean of {len(runs)} seeds")
    if learned.at_least is not None:
        axes.axhline(learned.at_least, color="0.5", linestyle="--", linewidth=1, label=f"{learned.at_least:g}")
    axes.set(title=learned.name, xlabel="environment steps", ylabel="return of greedy evaluations")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path, dpi=120)
