"""Record the curves of finished runs as references for users, and draw the page of curves.

python benchmarks/curves.py add minatar RUNS... --commit 3d4978f --command "tesserl sweep SWEEP"
python benchmarks/curves.py page

A suite is a directory of tesserl-analysis with `runs.csv` (a row for each run: score of the best and of the last
weights, 100 greedy episodes on unused seeds; commit and command) and `curves.csv` (its evaluations while it trained).
`tesserl compare RUNS --with SUITE` reads them. A run that is added again takes the place of its rows.
"""

import argparse
import csv
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from tesserl_analysis import Comparison, comparison_tables, plot_comparison, published_table, read_suite, suite_names
from tesserl_analysis.suites import COLUMNS, CURVES, RECORDED, RUNS
from tesserl_trainer.inspect.runs import find_runs, identify, read_score
from tesserl_training.metric_names import EVALUATION

DOCS = Path(__file__).parents[1] / "docs"
PAGE = """# Curves

Recorded learning curves of this project, and returns that others published. Compare your own runs with them:

    tesserl compare RUNS --with minatar

A score is the mean return of 100 greedy episodes on unused seeds, played by the best checkpoint of a run's evaluations.
Where a picture joins several tasks, a return is scaled: 0 is the first evaluation of the first variant, 1 its result.
`tesserl compare` makes the tables, intervals and pictures. `runs.csv` of each suite names the commit and the command of
every run. `python benchmarks/curves.py page` writes this page. [Results](results.md) describes the runs.
"""
Key = tuple[str, str, int]


def read(directory: Path, root: Path) -> tuple[Key, float, float, tuple[list[int], list[float]]]:
    """Return a run's key, its scores (best and last weights) and its curve."""
    variant, task, seed = identify(directory, root, by="variant", environments=True)
    best, curve = read_score(directory, EVALUATION, last=False)
    last, _ = read_score(directory, EVALUATION, last=True)
    return (task, variant, seed), best, last, curve


def add(suite: str, paths: Sequence[Path], *, commit: str, command: str) -> None:
    """Record the finished runs below the paths."""
    directory = RECORDED / suite
    directory.mkdir(exist_ok=True)
    found = [read(run, root) for run, root in find_runs(paths) if (run / "evaluation.json").is_file()]
    new = {key for key, *_ in found}
    runs = [[*key, f"{best:.6g}", f"{last:.6g}", commit, command] for key, best, last, _ in found]
    curves = [[*key, step, f"{value:.5g}"] for key, _, _, curve in found for step, value in zip(*curve, strict=True)]
    for name, rows in ((RUNS, runs), (CURVES, curves)):
        file = directory / name
        write(file, name, sorted([*kept(file, new), *rows], key=lambda row: order(row, name)))
    print(f"{suite}: {len(found)} runs recorded")


def kept(file: Path, new: set[Key]) -> list[list[str]]:
    """Return the rows of a file, without those of re-added runs."""
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        return [row for row in list(csv.reader(lines))[1:] if (row[0], row[1], int(row[2])) not in new]


def order(row: Sequence[object], name: str) -> tuple[str, str, int, int]:
    """Sort by task, variant, seed and step."""
    return str(row[0]), str(row[1]), int(str(row[2])), int(str(row[3])) if name == CURVES else 0


def write(file: Path, name: str, rows: Iterable[Sequence[object]]) -> None:
    """Write a file with its header."""
    with file.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(COLUMNS[name])
        writer.writerows(rows)


def page() -> None:
    """Write `docs/curves.md` and its pictures."""
    text = [PAGE]
    for name in suite_names():
        suite = read_suite(name)
        runs = [replace(run, variant=run.variant.removesuffix(f" ({name})")) for run in suite.runs]
        picture = DOCS / "images" / f"curves-{name}.png"
        comparison = Comparison(runs, bounds={})  # tasks differ in their returns
        plot_comparison(comparison, picture, metric=EVALUATION, title=f"{name}: {EVALUATION}, best weights")
        text.append(f"## {name}\n\n![{name}](images/{picture.name})\n")
        for title, header, rows in list(comparison_tables(comparison))[1:]:
            text.append(f"{title}\n\n{markdown(header, rows)}")
        if suite.published:
            table = published_table(suite.published)
            text.append(f"Published by others\n\n{markdown(table.header, table.rows)}")
    (DOCS / "curves.md").write_text("\n".join(text), encoding="utf-8")


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:], ""])


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="action", required=True)
    adding = commands.add_parser("add", help="record finished runs")
    adding.add_argument("suite")
    adding.add_argument("runs", nargs="+", type=Path)
    adding.add_argument("--commit", required=True, help="that trained them")
    adding.add_argument("--command", required=True, help="that trained them")
    commands.add_parser("page", help="write docs/curves.md")
    options = parser.parse_args()
    if options.action == "add":
        add(options.suite, options.runs, commit=options.commit, command=options.command)
    else:
        page()


if __name__ == "__main__":
    main()
