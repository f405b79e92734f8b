"""Pictures, and the record of a run that they are made from."""

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from tesserl_analysis import (
    Comparison,
    Run,
    draw_metrics,
    plot_comparison,
    plot_curve,
    plot_history,
    plot_importance,
    read_metrics,
    series,
)
from tesserl_analysis.plots import _draw_bands


@pytest.fixture
def run_dir(tmp_path):
    """A run with three lines of metrics, and half of one that was being written."""
    lines = ["step,name,value,time"]
    for step in (10, 20, 30):
        lines += [f"{step},train/return,{step},0.5", f"{step},evaluation/return,{2 * step},0.5"]
        lines += [f"{step},evaluation/return_std,1.0,0.5"]
    (tmp_path / "metrics.csv").write_text("\n".join([*lines, "40,train/ret"]))
    return tmp_path


def test_a_line_that_was_cut_short_is_left_out(run_dir):
    rows = read_metrics(run_dir / "metrics.csv")
    assert len(rows) == 9
    assert rows[0] == (10, "train/return", 10.0, 0.5)
    assert series(rows, "evaluation/return") == ([10, 20, 30], [20.0, 40.0, 60.0])
    assert series(rows, "no such name") == ([], [])


def test_the_curve_is_drawn_from_the_record(run_dir):
    path = plot_curve(run_dir, title="a run")
    assert path == run_dir / "curve.png"
    height, width, _ = imread(path).shape
    assert (height, width) == (480, 840)


def test_metrics_that_change_have_a_panel_each(run_dir):
    rows = read_metrics(run_dir / "metrics.csv")
    rows += [(10, "train/loss", 1.0, 0.5), (20, "train/loss", float("inf"), 0.5), (30, "train/loss", 2.0, 0.5)]
    rows += [(step, "schedule/rate", 0.1, 0.5) for step in (10, 20)]
    light, dark = (draw_metrics(rows, title="a < b", dark=dark) for dark in (False, True))
    texts = [node.text for node in ElementTree.fromstring(light).iter() if node.tag.endswith("}text")]
    assert "a < b" in texts
    assert "train/loss" in texts
    assert "schedule/rate" not in texts
    assert light != dark
    assert light == draw_metrics(rows, title="a < b")


def test_the_picture_of_a_comparison_has_the_width_of_a_page(tmp_path):
    runs = [
        Run(variant, task, seed, seed + bonus, ((5, 9), (0.0, seed + bonus)))
        for variant, bonus in (("a", 0.0), ("b", 1.0))
        for task in ("walk", "run")
        for seed in (1, 2)
    ]
    plot_comparison(Comparison(runs), tmp_path / "c.png", metric="return", title="two variants")
    height, width, _ = imread(tmp_path / "c.png").shape
    assert width == 1400
    assert height > 500


def test_a_curve_of_one_evaluation_is_a_point():

    runs = [
        Run(name, "t", 1, 1.0, (steps, [1.0] * len(steps)), Path(name)) for name, steps in (("a", [5]), ("b", [5, 9]))
    ]
    axes = Figure().add_subplot()
    _draw_bands(axes, Comparison(runs).curves("t"), {"a": "C0", "b": "C1"}, "a")
    assert [line.get_marker() for line in axes.lines] == ["o", "None"]


def test_the_trials_of_a_search_are_drawn_with_the_best_so_far(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Axes, "step", lambda axes, x, y, **options: drawn.append((list(x), list(y))))
    plot_history({3: 2.0, 0: 1.0, 2: 0.5}, {1: 0.1}, tmp_path / "history.png", title="a search", label="return")
    assert drawn == [([0, 2, 3], [1.0, 1.0, 2.0])]
    assert imread(tmp_path / "history.png").shape[:2] == (480, 840)


def test_importances_are_drawn_with_the_greatest_on_top(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Axes, "barh", lambda axes, names, shares, **options: drawn.append((names, shares)))
    plot_importance({"rate": 0.2, "discount": 0.8}, tmp_path / "importance.png", title="a search")
    assert drawn == [(["rate", "discount"], [0.2, 0.8])]
    assert imread(tmp_path / "importance.png").shape[1] == 840


def test_plots_without_matplotlib_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r'^plots need Matplotlib.*install "tesserl-analysis\[plots\]"$'):
        plot_importance({"a": 1.0}, tmp_path / "importance.png", title="")
