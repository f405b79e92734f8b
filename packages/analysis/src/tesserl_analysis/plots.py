"""Draw plots of runs with Matplotlib, which is imported on first use."""

import importlib.util
import secrets
from collections.abc import Mapping
from io import BytesIO
from itertools import accumulate
from math import ceil
from pathlib import Path
from typing import Any

from tesserl_analysis import run_files
from tesserl_analysis.comparison import AGGREGATES, Band, Comparison
from tesserl_analysis.record import Row, read_metrics, series
from tesserl_analysis.statistics import Interval

STEPS = "environment steps"
WIDTH = 14.0
"""Width of the plot of a comparison, in inches."""

COLUMNS = 4
"""Number of columns of metric panels."""

RETURNS = {"train/return", "evaluation/return", "evaluation/return_std"}
"""Metrics in the plot of returns."""

MANY = 6
"""With more variants than this, only the reference's curve has a band, because bands would hide each other."""


def require_matplotlib() -> None:
    """Raise an error if Matplotlib is missing.

    Raises:
        ModuleNotFoundError: Matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ModuleNotFoundError('plots need Matplotlib, which is not installed; install "tesserl-analysis[plots]"')


def plot_curve(run_dir: Path, *, title: str) -> Path:
    """Draw the returns of training and evaluation over the steps.

    Args:
        run_dir: directory of a run that contains ``metrics.csv``.
        title: title of the plot.

    Returns:
        The path of the plot, ``curve.png`` in the run's directory.

    Raises:
        ModuleNotFoundError: Matplotlib is not installed (extra ``plots``).
    """
    require_matplotlib()
    from matplotlib.figure import Figure  # slow to import, and needed once per run

    figure = Figure(figsize=(7, 4), layout="constrained")
    _draw_returns(figure.add_subplot(), read_metrics(run_dir / run_files.METRICS), title=title)
    path = run_dir / run_files.CURVE
    _save(figure, path, dpi=120)
    return path


def draw_metrics(rows: list[Row], *, title: str, dark: bool = False) -> str:
    """Draw the returns of a run and, below them, a small panel for each other metric that changes.

    Args:
        rows: rows of a ``metrics.csv``, see `read_metrics`.
        title: title of the plot.
        dark: use colours for a dark page.

    Returns:
        The plot as SVG; equal rows give equal text.

    Raises:
        ModuleNotFoundError: Matplotlib is not installed (extra ``plots``).
    """
    require_matplotlib()
    import matplotlib as mpl
    import matplotlib.style
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    names = [name for name in sorted({row[1] for row in rows} - RETURNS) if len(set(series(rows, name)[1])) > 1]
    lines = ceil(len(names) / COLUMNS)
    settings = {"svg.fonttype": "none", "svg.hashsalt": "tesserl", "savefig.transparent": True}
    style = mpl.style.context("dark_background" if dark else "default")
    with style, mpl.rc_context({**settings, "font.size": 9}):
        figure = Figure(figsize=(10, 4 + 1.7 * lines), layout="constrained")
        grid = figure.add_gridspec(lines + 1, COLUMNS, height_ratios=[4, *[1.7] * lines])
        _draw_returns(figure.add_subplot(grid[0, :]), rows, title=title)
        for number, name in enumerate(names):
            panel = figure.add_subplot(grid[1 + number // COLUMNS, number % COLUMNS])
            panel.plot(*series(rows, name), color="C0", linewidth=1)
            panel.set_title(name, fontsize="medium")
            panel.xaxis.set_major_formatter(EngFormatter(sep=""))
            panel.grid(alpha=0.3)
        picture = BytesIO()
        figure.savefig(picture, format="svg", metadata={"Date": None})
    return picture.getvalue().decode()


def _draw_returns(axes: Any, rows: list[Row], *, title: str) -> None:
    """Draw the returns of training and evaluation over the steps."""
    steps, returns = series(rows, "train/return")
    axes.plot(steps, returns, color="0.6", linewidth=1, label="training episodes (exploring)")
    steps, returns = series(rows, "evaluation/return")
    _, spread = series(rows, "evaluation/return_std")
    low = [mean - std for mean, std in zip(returns, spread, strict=True)]
    high = [mean + std for mean, std in zip(returns, spread, strict=True)]
    axes.fill_between(steps, low, high, color="C0", alpha=0.15, linewidth=0)
    axes.plot(
        steps, returns, color="C0", marker="o", markersize=3, label="evaluation (greedy), ± one standard deviation"
    )
    axes.set(title=title, xlabel=STEPS, ylabel="return")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)


def plot_history(
    values: Mapping[int, float], stopped: Mapping[int, float], path: Path, *, title: str, label: str
) -> None:
    """Draw the trials of a search in order, and the best value so far.

    Args:
        values: number of a trial -> its value.
        stopped: number of a trial that was stopped early -> its last evaluation.
        path: path of the plot.
        title: title of the plot.
        label: label of the values.

    Raises:
        ModuleNotFoundError: Matplotlib is not installed (extra ``plots``).
    """
    require_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    order = sorted(values)
    axes.plot(list(stopped), list(stopped.values()), "x", color="0.6", markersize=5, label="stopped early")
    axes.plot(order, [values[number] for number in order], "o", color="C0", markersize=4, label="trial")
    best = list(accumulate((values[number] for number in order), max))
    axes.step(order, best, color="C1", where="post", label="best so far")
    axes.set(title=title, xlabel="trial", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(loc="best", frameon=False)
    _save(figure, path, dpi=120)


def plot_importance(importance: Mapping[str, float], path: Path, *, title: str) -> None:
    """Draw how much the value of a trial depends on each key.

    Args:
        importance: key -> fraction; the fractions sum to 1.
        path: path of the plot.
        title: title of the plot.

    Raises:
        ModuleNotFoundError: Matplotlib is not installed (extra ``plots``).
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1.2 + 0.4 * len(importance)), layout="constrained")
    axes = figure.add_subplot()
    shares = sorted(importance.items(), key=lambda entry: entry[1])
    axes.barh([key for key, _ in shares], [share for _, share in shares], color="C0", height=0.6)
    axes.set(title=title, xlabel="importance (PED-ANOVA)", xlim=(0, 1))
    axes.grid(axis="x", alpha=0.3)
    _save(figure, path, dpi=120)


def plot_comparison(comparison: Comparison, path: Path, *, metric: str, title: str) -> None:
    """Draw aggregates, probabilities of improvement, profiles and curves of a comparison.

    Args:
        comparison: comparison to draw.
        path: path of the plot.
        metric: name of the metric that the curves show.
        title: title of the plot.

    Raises:
        ModuleNotFoundError: Matplotlib is not installed (extra ``plots``).
    """
    require_matplotlib()
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import EngFormatter

    variants, score = comparison.variants, metric if comparison.bounds is None else "score"
    palette = colormaps["tab10" if len(variants) <= 10 else "tab20"].colors  # type: ignore[attr-defined]
    colours = {variant: palette[index % len(palette)] for index, variant in enumerate(variants)}
    curves = [(f"{task}, IQM of the runs", STEPS, metric, comparison.curves(task)) for task in comparison.tasks]
    if len(comparison.tasks) > 1:
        axis = STEPS if comparison.same_steps else "share of the task's steps"
        curves.insert(0, ("all tasks, IQM of the runs", axis, score, comparison.curves()))
    if comparison.complete:
        curves.insert(0, ("performance profile", score, "share of runs above", comparison.profiles()))
    columns = min((3, 4, 2), key=lambda count: -len(curves) % count)  # fewest empty panels
    rows, top = ceil(len(curves) / columns), 1.1 + 0.27 * max(len(comparison.complete), 2)
    legend = 0.3 * ceil(len(variants) / 6) + 0.2
    figure = Figure(figsize=(WIDTH, top + 3.3 * rows + legend), layout="constrained")
    figure.suptitle(title)
    upper, lower, bottom = figure.subfigures(3, 1, height_ratios=[top, 3.3 * rows, legend], squeeze=False).flat
    _draw_intervals(upper, comparison, colours)
    panels = lower.subplots(rows, columns, squeeze=False).flat
    for panel, (name, x, y, bands) in zip(panels, curves, strict=False):
        panel.set_title(name, fontsize="medium")
        panel.set(xlabel=x, ylabel=y)
        if x == STEPS:
            panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        _draw_bands(panel, bands, colours, comparison.reference)
    for panel in lower.axes[len(curves) :]:
        panel.set_axis_off()
    handles = [Line2D([], [], color=colours[variant], label=variant) for variant in variants]
    bottom.legend(handles=handles, loc="center", ncols=6, frameon=False)
    _save(figure, path, dpi=100)


def _save(figure: Any, path: Path, *, dpi: int) -> None:
    """Write a plot to a temporary file, then rename it, so that no reader sees an incomplete file."""
    picture = BytesIO()
    figure.savefig(picture, dpi=dpi, format=path.suffix.removeprefix(".") or "png")
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.write_bytes(picture.getvalue())
        partial.replace(path)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def _draw_intervals(figure: Any, comparison: Comparison, colours: Mapping[str, Any]) -> None:
    """Draw a row of panels of intervals that share variant names; a value without an interval is a hollow point."""
    complete, reference = comparison.complete, comparison.reference
    aggregates = comparison.aggregates
    columns: list[tuple[str, dict[str, Interval], tuple[str, ...]]] = [
        (name, {variant: aggregates[variant][name] for variant in complete}, ()) for name in AGGREGATES
    ]
    better = {variant: value for variant, value in comparison.improvements.items() if variant in complete}
    columns.append((f"P(better than {reference})", better, (reference,)))
    panels = figure.subplots(1, len(columns), sharey=True)
    for panel, (name, intervals, involved) in zip(panels, columns, strict=True):
        for variant, (value, low, high) in intervals.items():
            row, colour, known = complete.index(variant), colours[variant], comparison.has_spread(variant, *involved)
            if known:
                panel.plot([low, high], [row, row], color=colour, linewidth=6, alpha=0.35, solid_capstyle="butt")
            panel.plot(value, row, "o", color=colour, markersize=5, fillstyle="full" if known else "none")
        panel.set_title(name, fontsize="medium")
        panel.grid(axis="x", alpha=0.3)
        panel.locator_params(axis="x", nbins=5)
    panels[-1].axvline(0.5, color="0.5", linewidth=1, linestyle="--")
    panels[-1].set_xlim(-0.03, 1.03)
    panels[0].set_yticks(range(len(complete)), complete)
    panels[0].set_ylim(len(complete) - 0.4, -0.6)


def _draw_bands(panel: Any, bands: Mapping[str, Band], colours: Mapping[str, Any], reference: str) -> None:
    for variant, (x, value, low, high) in bands.items():
        width, marker = 2 if variant == reference else 1.3, "o" if x[0] == x[-1] else None  # marks a single point
        panel.plot(x, value, color=colours[variant], linewidth=width, marker=marker, markersize=5)
        if len(bands) <= MANY or variant == reference:
            panel.fill_between(x, low, high, color=colours[variant], alpha=0.15, linewidth=0)
    panel.grid(alpha=0.3)
