"""``tesserl compare`` on directories of runs whose numbers are known."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tesserl_trainer.cli import main

pytestmark = pytest.mark.kernel_free

EVALUATED = (100, 200, 300)


def write_run(
    directory: Path, *, seed: int, best: float, name: str = "x", environment: str = "Here-v0", **more
) -> Path:
    """A run whose evaluations rise from 0 to ``best``, and whose last weights have one less."""
    directory.mkdir(parents=True)
    config = {"name": name, "seed": seed, "environment": {"id": environment}, **more}
    (directory / "config.yaml").write_text(json.dumps(config))
    rows = [(step, "evaluation/return", best * place / 2) for place, step in enumerate(EVALUATED)]
    rows += [(step, "train/loss", 7.0 - place) for place, step in enumerate(EVALUATED)]
    text = "".join(f"{step},{metric},{value},0.0\n" for step, metric, value in rows)
    (directory / "metrics.csv").write_text(f"step,name,value,time\n{text}")
    (directory / "evaluation.json").write_text(json.dumps({"return_mean": best, "last_return_mean": best - 1}))
    return directory


@pytest.fixture
def sweep(tmp_path) -> Path:
    """Two tasks, two variants, three seeds; ``low`` is far below ``base``; ``odd`` has no runs of the second task."""
    scores = {
        ("first", "base"): (10, 12, 14),
        ("first", "low"): (1, 2, 3),
        ("first", "odd"): (9, 12, 15),
        ("second", "base"): (110, 100, 120),
        ("second", "low"): (50, 55, 60),
    }
    for (task, variant), returns in scores.items():
        for seed, best in enumerate(returns, 1):
            write_run(tmp_path / "s" / task / variant / f"seed-{seed}", seed=seed, best=best)
    return tmp_path / "s"


@pytest.fixture
def compare(tmp_path, capfd):
    """Runs the command; returns what it printed and the JSON it wrote."""

    def run(*arguments: object, code: int = 0) -> tuple[str, dict]:
        path = tmp_path / "report.json"
        assert main(["compare", *map(str, arguments), "--json", str(path)]) == code, capfd.readouterr().err
        output = capfd.readouterr()
        if code:
            return output.err, {}
        return output.out, json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))

    return run


def test_a_sweep_is_grouped_by_its_directories(sweep, compare):
    out, report = compare(sweep)
    assert list(report["tasks"]) == ["first", "second"]
    assert report["tasks"]["first"]["returns"]["low"] == {"1": 1, "2": 2, "3": 3}
    assert list(report["aggregates"]) == ["base", "low"]
    assert "odd has no runs of second: it is in the tables of its tasks only" in out
    assert "first, by seed" in out


def test_scores_are_scaled_by_the_reference_and_the_output_says_so(sweep, compare):
    out, report = compare(sweep)
    assert report["bounds"] == {"first": [0, 12], "second": [0, 110]}
    assert "scores: returns scaled for each task, first: 0 is 0, 1 is 12; second: 0 is 0, 1 is 110" in out
    low = [1 / 12, 2 / 12, 3 / 12, 50 / 110, 55 / 110, 60 / 110]
    assert report["aggregates"]["low"]["mean"]["value"] == pytest.approx(np.mean(low))
    assert report["aggregates"]["low"]["IQM"]["value"] == pytest.approx(np.mean(low[1:5]))
    assert report["aggregates"]["low"]["median"]["value"] == pytest.approx(np.mean(low[2:4]))


def test_bounds_can_be_given_or_refused(sweep, compare):
    _, report = compare(sweep, "--normalize", "first=2:22", "--normalize", "reference")
    assert report["bounds"] == {"first": [2, 22], "second": [0, 110]}
    assert report["aggregates"]["base"]["mean"]["value"] == pytest.approx((0.4 + 0.5 + 0.6 + 3) / 6)
    out, report = compare(sweep, "--normalize", "none")
    assert report["bounds"] is None
    assert report["aggregates"]["base"]["mean"]["value"] == pytest.approx((36 + 330) / 6)
    assert "returns as they are" in out


def test_one_task_has_raw_returns(sweep, compare):
    _, report = compare(sweep, "--task", "first")
    assert report["bounds"] is None
    assert list(report["aggregates"]) == ["base", "low", "odd"]
    assert report["aggregates"]["odd"]["mean"]["value"] == 12


def test_the_sentences_say_what_can_be_told_apart(sweep, compare):
    out, report = compare(sweep, "--task", "first")
    # of three runs the least and the greatest: each has 1/27 of the resamples, more than 2.5 %
    assert "low is below base: the 95 % intervals of their IQM are apart, 1 to 3 and 10 to 14" in out
    assert "odd and base cannot be told apart: the 95 % intervals of their IQM overlap" in out
    assert report["improvements"]["low"] == {"value": 0, "low": 0, "high": 0}
    # 9 loses to all; 12 wins 1, draws 1; 15 wins 3
    assert report["improvements"]["odd"]["value"] == pytest.approx((1.5 + 3) / 9)
    out, _ = compare(sweep, "--task", "first", "--reference", "low")
    assert "base is above low" in out


def test_a_single_run_has_no_interval(tmp_path, compare):
    for variant, best in (("a", 1), ("b", 9)):
        write_run(tmp_path / "s" / variant / "seed-1", seed=1, best=best)
    out, report = compare(tmp_path / "s")
    assert "b and a cannot be told apart: a task of b has a single run, which has no interval" in out
    assert report["aggregates"]["b"]["IQM"] == {"value": 9, "low": None, "high": None}
    assert report["improvements"]["b"]["low"] is None
    assert report["tasks"]["Here-v0"]["curves"]["b"]["low"] == [None, None, None]


def test_last_weights_and_other_metrics(sweep, compare):
    _, report = compare(sweep, "--task", "first", "--final")
    assert report["tasks"]["first"]["returns"]["low"] == {"1": 0, "2": 1, "3": 2}
    _, report = compare(sweep, "--task", "first", "--metric", "train/loss", "--final")
    assert report["tasks"]["first"]["returns"]["low"] == {"1": 5, "2": 5, "3": 5}
    assert report["tasks"]["first"]["curves"]["low"]["value"] == [7, 6, 5]
    _, report = compare(sweep, "--task", "first", "--metric", "train/loss")
    assert report["tasks"]["first"]["returns"]["low"]["1"] == 7


def test_curves_are_at_the_evaluations_and_interpolated_where_these_differ(sweep, compare):
    _, report = compare(sweep)
    curve = report["tasks"]["first"]["curves"]["base"]
    assert (curve["steps"], curve["value"]) == ([100, 200, 300], [0, 6, 12])
    assert report["curves"]["base"]["value"] == pytest.approx([0, 0.5, np.mean([100 / 110, 1, 1, 120 / 110])])
    path = sweep / "first/base/seed-2/metrics.csv"
    path.write_text("step,name,value,time\n150,evaluation/return,2,0\n350,evaluation/return,6,0\n")
    curve = compare(sweep)[1]["tasks"]["first"]["curves"]["base"]
    assert (curve["steps"][0], curve["steps"][-1], len(curve["steps"])) == (150, 300, 51)
    assert curve["value"][0] == pytest.approx(np.mean([10 / 4, 2, 14 / 4]))


def test_the_order_is_that_of_the_sweep(sweep, compare):
    (sweep / "sweep.json").write_text(json.dumps({"tasks": ["second", "first"], "variants": ["odd", "low", "base"]}))
    _, report = compare(sweep, "--task", "first")
    assert (report["reference"], list(report["aggregates"])) == ("odd", ["odd", "low", "base"])
    assert list(compare(sweep, "--reference", "base")[1]["tasks"]) == ["second", "first"]


def test_loose_runs_are_grouped_by_name_and_environment(tmp_path, compare):
    runs = [write_run(tmp_path / f"r-{seed}", seed=seed, best=seed, name="a") for seed in (1, 2, 10)]
    runs += [write_run(tmp_path / f"q-{seed}", seed=seed, best=5, name="b", nn={"width": 3}) for seed in (1, 2)]
    _, report = compare(*runs)
    assert report["tasks"]["Here-v0"]["returns"] == {"a": {"1": 1, "2": 2, "10": 10}, "b": {"1": 5, "2": 5}}
    assert list(compare(*runs[:3], "--by", "seed")[1]["aggregates"]) == ["1", "2", "10"]
    assert list(compare(*runs[3:], "--by", "nn.width")[1]["aggregates"]) == ["3"]


def test_a_part_of_a_sweep_is_grouped_as_the_whole(sweep, compare):
    _, report = compare(sweep / "first" / "base", sweep / "first" / "low" / "seed-2")
    assert next(iter(report["tasks"].values()))["returns"] == {"base": {"1": 10, "2": 12, "3": 14}, "low": {"2": 2}}


def test_what_is_not_finished_is_named(sweep, compare):
    (sweep / "first/low/seed-2/evaluation.json").unlink()
    out, report = compare(sweep)
    assert f"left out, not finished: {sweep}/first/low/seed-2" in out
    assert report["left_out"] == [f"{sweep}/first/low/seed-2"]
    assert report["tasks"]["first"]["returns"]["low"] == {"1": 1, "3": 3}
    assert f"not finished: {sweep}/first/low/seed-2" in compare(sweep, "--strict", code=1)[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reference", "nobody"], "no such variant; there are: base, low"),
        (["--normalize", "first=x"], "expected none, reference or TASK=LOW:HIGH"),
        (["--normalize", "third=0:1"], "no such task; there are: first, second"),
        (
            ["--normalize", "first=1:1"],
            "first: 0 would be 1 and 1 would be 1, but scores need a finite return and a higher",
        ),
        (["--normalize", "first=20:0"], "first: 0 would be 20 and 1 would be 0, but"),
        (["--normalize", "first=nan:1"], "first: 0 would be nan"),
        (["--normalize", "first=0:inf"], "1 would be inf"),
        (["--normalize", "none", "--normalize", "reference"], "stands alone"),
        (["--reference", "odd"], "second: the reference odd has no runs with evaluations to take bounds from"),
        (["--metric", "train/los"], "--metric train/los: no such metric; did you mean train/loss?"),
        (["--by", "iqn.taus"], "has no key iqn.taus"),
        (["--by", "environment.idd"], "has no key environment.idd; did you mean id?"),
        (["--reference", "bas"], "reference bas: no such variant; did you mean base?"),
        (["--by", "name"], "are both seed 1 of x on first"),
        (["--task", "third"], "--task third: no such task; there are: first, second"),
        (["--task", "frist"], "did you mean first?"),
        (["--png", "nowhere/here/x.png"], "there is no directory nowhere/here; make it first: mkdir -p nowhere/here"),
    ],
)
def test_mistakes_are_named(sweep, compare, arguments, message):
    error, _ = compare(sweep, *arguments, code=1 if "name" in arguments or "odd" in arguments else 2)
    assert message in error
    assert "Traceback" not in error


def describe(sweep: Path, tasks=("first", "second"), variants=("base", "low", "odd"), **more) -> None:
    (sweep / "sweep.json").write_text(json.dumps({"tasks": tasks, "variants": variants, **more}))


def test_a_reference_that_got_worse_gives_no_scale(sweep, compare):
    for seed in (1, 2, 3):
        (sweep / f"second/base/seed-{seed}/metrics.csv").write_text(
            "step,name,value,time\n100,evaluation/return,200,0\n200,evaluation/return,110,0\n"
        )
    error, _ = compare(sweep, code=1)
    assert "second: 0 would be 200 and 1 would be 110, the first evaluation and the score of base, but" in error
    assert "give bounds of second, such as --normalize second=LOW:HIGH" in error
    assert compare(sweep, "--normalize", "second=0:200")[1]["bounds"] == {"first": [0, 12], "second": [0, 200]}


def test_intervals_of_few_runs_that_are_apart_come_with_a_warning(sweep, tmp_path, compare):
    out, report = compare(sweep, "--task", "first")
    assert "10 to 14, but 3 runs are too few to be sure: two equal variants of so few runs each come out" in out
    assert "apart in about one of 10 such comparisons" in report["verdicts"][0]
    assert report["too_few_runs"] == ["low", "odd"]
    out, report = compare(sweep)  # six runs of two tasks
    assert "low is below base" in out
    assert "too few" not in out
    assert report["too_few_runs"] == []
    for variant, count in (("a", 5), ("b", 2)):
        for seed in range(count):
            write_run(tmp_path / "t" / variant / f"seed-{seed}", seed=seed, best=seed + 10 * (variant == "b"))
    assert "but 2 runs are too few to be sure" in compare(tmp_path / "t")[0]


def test_the_reference_is_the_first_variant_of_the_sweep_wherever_it_has_runs(sweep, compare):
    describe(sweep, variants=("odd", "low", "base"))
    shutil.rmtree(sweep / "first/low")
    shutil.rmtree(sweep / "first/odd")
    write_run(sweep / "second/odd/seed-1", seed=1, best=3)
    assert compare(sweep, "--normalize", "none")[1]["reference"] == "odd"  # though the first task has base only
    assert list(compare(sweep / "second")[1]["aggregates"]) == ["odd", "low", "base"]
    (sweep / "second/odd/seed-1/evaluation.json").unlink()
    out, report = compare(sweep / "second")
    assert report["reference"] == "low"
    assert "the reference is low, as odd, the first variant of the sweep, has no finished run here" in out
    assert "has no finished run" not in compare(sweep / "second", "--reference", "base")[0]
    assert "no such variant with a finished run here" in compare(sweep, "--reference", "odd", code=2)[0]


def test_runs_that_never_started_are_named(sweep, compare):
    names = [f"{task}/odd/seed-{seed}" for task in ("first", "second") for seed in range(1, 5)]
    describe(sweep, runs=names)
    (sweep / "first/base/seed-4").mkdir()  # and one that older sweeps know of only as a directory
    out, report = compare(sweep)
    missing = ["first/odd/seed-4", *names[4:], "first/base/seed-4"]
    assert report["missing"] == [str(sweep / name) for name in missing]
    shown = ", ".join(report["missing"][:4])
    assert f"left out, never started or failed at once: {shown} and 2 more" in out
    assert f"never started or failed at once: {shown}" in compare(sweep, "--strict", code=1)[0]
    assert compare(sweep, "--task", "first")[1]["missing"] == [str(sweep / name) for name in (missing[0], missing[-1])]
    assert compare(sweep / "first/low", "--strict")[1]["missing"] == []


def test_a_sweep_without_finished_runs_says_what_it_has(tmp_path, compare):
    for seed in range(1, 7):
        (write_run(tmp_path / f"s/a/seed-{seed}", seed=seed, best=1) / "evaluation.json").unlink()
    error, _ = compare(tmp_path / "s", code=1)
    assert f"{tmp_path}/s: there is no finished run to compare; not finished: {tmp_path}/s/a/seed-1, " in error
    assert "seed-4 and 2 more" in error
    (tmp_path / "t").mkdir()
    describe(tmp_path / "t", tasks=(), variants=("a",), runs=["a/seed-1"])
    assert f"never started or failed at once: {tmp_path}/t/a/seed-1" in compare(tmp_path / "t", code=1)[0]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("sweep.json", "{}", "sweep.json: tasks: expected a list of names, got null; start the sweep again"),
        ("sweep.json", '{"tasks": [', "sweep.json: not whole JSON (Expecting value"),
        ("sweep.json", '{"tasks": [], "variants": [], "runs": 3}', "runs: expected a list of names, got 3"),
        ("first/base/seed-1/config.yaml", "name: x", "seed-1/config.yaml: has no key seed; leave the run out"),
        ("first/base/seed-1/config.yaml", "seed: x", "seed: expected a whole number, got x"),
        ("first/base/seed-1/config.yaml", "a: [", "seed-1/config.yaml: not valid YAML"),
        ("first/base/seed-1/evaluation.json", '{"return_mean": 1}', "last_return_mean: expected a number, got null"),
        ("first/base/seed-1/evaluation.json", '{"return', "seed-1/evaluation.json: not whole JSON"),
        ("first/base/seed-1/metrics.csv", "step\n1,2\n", "seed-1: metrics.csv: a bad line"),
    ],
)
def test_broken_files_are_named(sweep, compare, file, text, message):
    (sweep / file).write_text(text)
    error, _ = compare(sweep, "--final", code=1)
    assert message in error
    assert "Traceback" not in error


def test_what_a_sweep_starts_runs_from_is_no_run(sweep, compare):
    describe(sweep)
    (sweep / "configs").mkdir()
    (sweep / "configs" / "config.yaml").write_text("seed: 1")
    assert compare(sweep, "--strict")[1]["left_out"] == []


def test_sweeps_without_tasks_of_one_environment_are_one_task(tmp_path, compare):
    for name in ("s", "t"):
        write_run(tmp_path / "runs" / name / f"{name}-variant" / "seed-1", seed=1, best=1)
        describe(tmp_path / "runs" / name, tasks=(), variants=(f"{name}-variant",))
    assert list(compare(tmp_path / "runs")[1]["tasks"]) == ["Here-v0"]


def test_a_directory_that_is_named_twice_counts_once(sweep, compare, monkeypatch):
    monkeypatch.chdir(sweep.parent)
    assert compare("s", sweep, "s/../s/first")[1]["tasks"] == compare(sweep)[1]["tasks"]


def test_a_directory_without_runs_is_an_error(tmp_path, compare):
    assert f"{tmp_path}: expected runs, got a directory without config.yaml in or" in compare(tmp_path, code=2)[0]


def test_the_picture_shows_every_variant(sweep, tmp_path, capfd):
    from matplotlib.image import imread

    assert main(["compare", str(sweep), "--png", str(tmp_path / "c.png")]) == 0
    height, width, _ = imread(tmp_path / "c.png").shape
    assert width == 1400
    assert height > 500


def test_it_does_not_wait_for_torch(sweep):
    code = f"import sys; from tesserl_trainer.cli import main; main(['compare', {str(sweep)!r}]); "
    code += "print([name for name in ('torch', 'gymnasium', 'matplotlib', 'pydantic') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]", result.stdout


@pytest.fixture
def suite(tmp_path) -> Path:
    """A recorded run of Here-v0, and a published return of it."""
    directory = tmp_path / "recorded"
    directory.mkdir()
    (directory / "runs.csv").write_text(
        "task,variant,seed,score,last_score,commit,command\nHere-v0,theirs,1,20,5,abc,train\n"
        "There-v0,theirs,1,99,99,abc,train\n"
    )
    (directory / "curves.csv").write_text("task,variant,seed,step,return\nHere-v0,theirs,1,100,20\n")
    (directory / "published.csv").write_text(
        "task,method,return,steps,source,protocol\nHere-v0,DQN,33,9,paper,greedy\n"
    )
    return directory


def test_recorded_runs_stand_beside(compare, tmp_path, suite):
    write_run(tmp_path / "ours/seed-1", seed=1, best=10.0, name="ours")
    output, report = compare(tmp_path / "ours", "--with", suite)
    assert report["reference"] == "ours"
    assert list(report["tasks"]) == ["Here-v0"]
    assert report["tasks"]["Here-v0"]["returns"] == {"ours": {"1": 10.0}, "theirs (recorded)": {"1": 20.0}}
    assert report["published"][0]["value"] == 33.0
    assert "paper" in output
    _, report = compare(tmp_path / "ours", "--with", suite, "--final")
    assert report["tasks"]["Here-v0"]["returns"]["theirs (recorded)"] == {"1": 5.0}


def test_tasks_of_a_sweep_are_environments_beside_recorded_runs(compare, sweep, suite):
    for run in (sweep / "second").rglob("config.yaml"):
        run.write_text(run.read_text().replace("Here-v0", "There-v0"))
    _, report = compare(sweep, "--with", suite, "--normalize", "none")
    assert set(report["tasks"]) == {"Here-v0", "There-v0"}
    assert set(report["tasks"]["There-v0"]["returns"]) == {"base", "low", "theirs (recorded)"}


def test_recorded_runs_stand_behind_those_of_a_part_of_a_sweep(compare, sweep, suite):
    order = {"tasks": ["first", "second"], "variants": ["base", "low", "odd"]}
    (sweep / "sweep.json").write_text(json.dumps(order))
    _, report = compare(sweep / "first", "--with", suite)
    assert report["reference"] == "base"
    assert list(report["aggregates"]) == ["base", "low", "odd", "theirs (recorded)"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--with", "minatar"], "minatar has runs of MinAtar/Asterix-v1"),
        (["--with", "no"], "--with no: no such suite"),
        (
            ["--with", "minatar", "--metric", "train/loss"],
            "--with has evaluation/return alone",
        ),
    ],
)
def test_runs_that_nothing_stands_beside_are_refused(compare, tmp_path, arguments, message):
    write_run(tmp_path / "ours/seed-1", seed=1, best=10.0)
    error, _ = compare(tmp_path / "ours", *arguments, code=2)
    assert message in error
