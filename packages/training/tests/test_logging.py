"""The record of metrics, and what a person sees."""

import pytest
import torch

from tesserl_analysis import read_metrics, series
from tesserl_training.event_file import EventFile
from tesserl_training.logging import Averages, MetricsLog
from tesserl_training.progress import ProgressDisplay

pytestmark = pytest.mark.kernel_free


def test_every_value_is_read_back_bit_for_bit(tmp_path):
    log = MetricsLog(tmp_path)
    log.open()
    log.log(5, {"train/loss": 0.1 + 0.2, "train/return": -1e-300})
    log.log(9, {"train/loss": float("nan")})
    rows = read_metrics(log.path)
    assert [row[:2] for row in rows] == [(5, "train/loss"), (5, "train/return"), (9, "train/loss")]
    assert rows[0][2] == 0.1 + 0.2
    assert series(rows, "train/return") == ([5], [-1e-300])
    log.close()


def test_resuming_cuts_what_came_after_the_checkpoint_and_half_a_line(tmp_path):
    log = MetricsLog(tmp_path)
    log.open()
    for step in (10, 20):
        log.log(step, {"a": step})
    record = log.record()
    log.log(30, {"a": 30})
    log.close()
    with log.path.open("a") as file:
        file.write("40,a,4")
    log.open(resume_step=20, record=record)
    log.log(21, {"a": 7.0})
    log.close()
    assert [row[:3] for row in read_metrics(log.path)] == [(10, "a", 10.0), (20, "a", 20.0), (21, "a", 7.0)]


def test_tensorboard_shows_the_same_values(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = MetricsLog(tmp_path, {"tensorboard": lambda step: EventFile(tmp_path / "tensorboard", purge_step=step)})
    log.open()
    log.log(3, {"train/loss": 0.5})
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(3, 0.5)]


def test_logging_before_opening_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match=r"not open; call open\(\) first"):
        MetricsLog(tmp_path).log(1, {"a": 1.0})


def test_averages_are_means_and_forget_what_was_read():
    averages = Averages()
    for value in (1.0, 2.0, 6.0):
        averages.add({"loss": torch.tensor(value), "norm": torch.tensor(2 * value)})
    assert averages.finite()
    assert averages.pop() == {"loss": 3.0, "norm": 6.0}
    assert averages.pop() == {}
    averages.add({"loss": torch.tensor(float("nan"))})
    assert not averages.finite()


def test_averages_do_not_alias_the_tensors_that_they_are_given():
    averages, loss = Averages(), torch.tensor(1.0, dtype=torch.float64)
    averages.add({"loss": loss})
    averages.add({"loss": loss})
    assert loss == 1.0
    assert averages.pop() == {"loss": 1.0}


def test_averages_continue_from_a_state():
    first, second = Averages(), Averages()
    first.add({"loss": torch.tensor(1.0)})
    second.load_state_dict(first.state_dict())
    second.add({"loss": torch.tensor(2.0)})
    assert second.pop() == {"loss": 1.5}


def test_averages_are_each_over_their_own_values():
    averages, twin = Averages(), Averages()
    averages.add({"loss": torch.tensor(1.0), "accuracy": torch.tensor(0.5)})
    averages.add({"loss": torch.tensor(3.0)})
    twin.load_state_dict(averages.state_dict())
    assert averages.pop() == twin.pop() == {"loss": 2.0, "accuracy": 0.5}


def test_averages_of_large_values_keep_small_differences():
    averages = Averages()
    for number in range(1000):  # the sum reaches 1e9, where float32 has steps of 64
        averages.add({"loss": torch.tensor(1e6 + number % 2)})
    assert averages.pop() == {"loss": 1e6 + 0.5}


def test_averages_of_version_0_1_continue():
    averages = Averages()
    averages.load_state_dict({"sums": {"loss": torch.tensor(6.0), "norm": torch.tensor(3.0)}, "count": 3})
    averages.add({"loss": torch.tensor(2.0), "norm": torch.tensor(1.0)})
    assert averages.pop() == {"loss": 2.0, "norm": 1.0}


def test_averages_of_a_checkpoint_go_to_the_device_of_what_is_added():
    first, second = Averages(), Averages()
    first.add({"loss": torch.tensor(1.0)})
    second.load_state_dict(first.state_dict())
    second.add({"loss": torch.zeros((), device="meta")})
    assert second.state_dict()["sums"]["loss"].device.type == "meta"


def test_averages_add_in_the_order_of_the_calls_whatever_names_they_have_and_wherever_they_are_saved():
    values = torch.rand(40, dtype=torch.float64).exp().mul(1e7).unbind()
    expected = {"loss": 0.0, "norm": 0.0}
    averages = Averages()
    for number, value in enumerate(values):
        names = ("loss", "norm") if number % 3 else ("loss",)
        averages.add(dict.fromkeys(names, value.float()))
        for name in names:
            expected[name] += float(value.float())
        if number == 20:
            state = averages.state_dict()
            averages = Averages()
            averages.load_state_dict(state)
    assert averages.pop() == {"loss": expected["loss"] / 40, "norm": expected["norm"] / 26}


def test_averages_of_whole_numbers_are_not_rounded():
    averages = Averages()
    averages.add({"loss": torch.tensor(0.5), "pairs": torch.tensor(2**24 + 1)})
    assert averages.pop() == {"loss": 0.5, "pairs": 2**24 + 1}


def test_progress_is_plain_lines_where_there_is_no_terminal(capfd):
    with ProgressDisplay(2_000) as progress:
        progress.advance(1)
        progress.report(1_000, 12.34, 500.0, 125.0)
        progress.report(1_500, None, 500.0, 125.0)
    lines = capfd.readouterr().err.splitlines()
    assert lines == [
        "step 1,000/2,000  return 12.3  500 steps/s  125 updates/s  ETA 2 s",
        "step 1,500/2,000  return 12.3  500 steps/s  125 updates/s  ETA 1 s",
    ]


def test_before_the_first_episode_ends_progress_shows_what_evaluations_found(capfd):
    with ProgressDisplay(2_000) as progress:
        for number, evaluated in enumerate([None, 7.0, None, 8.0]):
            progress.know(evaluated=evaluated)
            progress.report(number, 5.0 if number == 3 else None, 1.0, 1.0)
    lines = capfd.readouterr().err.splitlines()
    assert [line.split()[3] for line in lines] == ["-", "7.0", "7.0", "5.0"]


def test_an_evaluation_has_lines_of_its_own_where_there_is_no_terminal(monkeypatch, capfd):
    monkeypatch.setattr("tesserl_training.progress.SECONDS", -1.0)
    with ProgressDisplay(2_000) as progress:
        ended = progress.evaluation("best weights", 4)
        ended(1.0)
        ended(2.0)
    assert capfd.readouterr().err.splitlines() == [
        "episode 1/4  best weights: return 1.0",
        "episode 2/4  best weights: return 1.5",
    ]


def test_progress_is_a_bar_on_a_terminal(monkeypatch, capfd):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    with ProgressDisplay(2_000, 500) as progress:
        progress.report(1_000, 12.34, 500.0, 125.0)
        progress.note("a note")
        ended = progress.evaluation("best weights", 4)
        ended(7.0)
        ended(8.0)
    shown = capfd.readouterr().err
    assert "a note" in shown
    assert "1000/2000" in shown
    assert "return 12.3" in shown
    assert "2/4" in shown
    assert "best weights: return 7.5" in shown
