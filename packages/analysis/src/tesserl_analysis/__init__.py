"""Statistics of finished reinforcement-learning runs: aggregates, stratified bootstrap intervals, tables and plots."""

from tesserl_analysis.__about__ import __version__
from tesserl_analysis.comparison import Comparison, ComparisonError, Run
from tesserl_analysis.plots import draw_metrics, plot_comparison, plot_curve, plot_history, plot_importance
from tesserl_analysis.record import read_metrics, series
from tesserl_analysis.statistics import (
    Interval,
    curve_band,
    interquartile_mean,
    interval,
    mean,
    median,
    median_of_task_means,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    resamples,
)
from tesserl_analysis.suites import Published, Suite, published_table, read_suite, suite_names
from tesserl_analysis.tables import Table, comparison_report, comparison_tables, comparison_verdicts

__all__ = [
    "Comparison",
    "ComparisonError",
    "Interval",
    "Published",
    "Run",
    "Suite",
    "Table",
    "__version__",
    "comparison_report",
    "comparison_tables",
    "comparison_verdicts",
    "curve_band",
    "draw_metrics",
    "interquartile_mean",
    "interval",
    "mean",
    "median",
    "median_of_task_means",
    "optimality_gap",
    "performance_profile",
    "plot_comparison",
    "plot_curve",
    "plot_history",
    "plot_importance",
    "probability_of_improvement",
    "published_table",
    "read_metrics",
    "read_suite",
    "resamples",
    "series",
    "suite_names",
]
