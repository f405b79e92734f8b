"""Pictures of runs."""

from pathlib import Path

from tesserl_trainer.analysis.record import read_metrics, series


def plot_curve(run_dir: Path, *, title: str) -> Path:
    """Draws the returns of training and evaluation over the steps.

    Args:
        run_dir: directory of a run, with a ``metrics.csv``.
        title: stands above the picture.

    Returns:
        The picture, ``curve.png`` in the run's directory.
    """
    from matplotlib.figure import Figure  # as slow to import as a checkpoint is to write; needed once a run

    rows = read_metrics(run_dir / "metrics.csv")
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
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
    axes.set(title=title, xlabel="environment steps", ylabel="return")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    path = run_dir / "curve.png"
    figure.savefig(path, dpi=120)
    return path
