"""Write the results of a search: the best configuration, two pictures and a table."""

import json
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from tesserl_analysis import plot_history, plot_importance
from tesserl_analysis.tables import Table
from tesserl_configs import dump_config
from tesserl_configs.search import Search
from tesserl_storage.whole_files import write_text
from tesserl_trainer.console.tables import rich_table
from tesserl_trainer.search.trials import Trials

MOST_ROWS = 10


def write_results(search: Search, trials: Trials, directory: Path, note: Callable[[str], None]) -> Path:
    """Write ``best.yaml`` and the pictures; print the best trials; return the file with the best configuration."""
    finished = trials.finished()
    valued = sorted((it for it in finished if it.state.name == "COMPLETE"), key=lambda it: -it.value)
    pruned = {it.number: list(it.intermediate_values.values())[-1] for it in finished if it.state.name == "PRUNED"}
    best = directory / "best.yaml"
    write_text(best, dump_config(search.trial(trials.values_of(valued[0]), "best")))
    label = {"final": "return", "mean": "mean return during training"}[search.config.objective]
    values = {it.number: float(it.value) for it in valued}
    plot_history(values, pruned, directory / "history.png", title=search.name, label=label)
    if importance := _importance(trials):
        plot_importance(importance, directory / "importance.png", title=search.name)
    else:
        note("too few trials with different values for importance.png")
    header = ["trial", label, *search.config.space]
    rows = [
        [str(it.number), f"{it.value:.1f}", *(shown_value(value) for value in trials.values_of(it).values())]
        for it in valued[:MOST_ROWS]
    ]
    failed = len(finished) - len(valued) - len(pruned)
    title = f"{search.name}: {len(valued)} trials finished, {len(pruned)} stopped early, {failed} failed; the best"
    width = None if sys.stderr.isatty() else max(160, shutil.get_terminal_size().columns)
    Console(file=sys.stderr, highlight=False, width=width).print(rich_table(Table(title, header, rows)))
    return best


def _importance(trials: Trials) -> Mapping[str, float]:
    """Return the importance of each key by PED-ANOVA; empty if the trials do not determine it."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # PED-ANOVA warns of too few or equal values
        try:
            return get_param_importances(trials.study, evaluator=PedAnovaImportanceEvaluator())
        except (RuntimeError, UserWarning, ValueError):
            return {}


def shown(values: Mapping[str, Any]) -> str:
    """Format values for people."""
    return ", ".join(f"{key} {shown_value(value)}" for key, value in values.items())


def shown_value(value: Any) -> str:
    """Format a number with four digits, other values as JSON."""
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
