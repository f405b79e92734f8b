"""Loggers that fail."""

from types import SimpleNamespace

import pytest

from tesserl_analysis import read_metrics
from tesserl_training.logging import MetricsLog

pytestmark = pytest.mark.kernel_free


class Failing:
    """A logger that fails in one of its methods."""

    def __init__(self, where: str) -> None:
        self.where, self.calls = where, []
        self("open")

    def __call__(self, name: str) -> None:
        self.calls.append(name)
        if name == self.where:
            raise ConnectionError("the server is\ngone")

    def log(self, step, metrics):
        self("log")

    def close(self):
        self("close")


@pytest.mark.parametrize("where", ["open", "log", "close"])
def test_a_logger_that_fails_is_named_once_and_the_others_continue(tmp_path, where):
    notes, others = [], []
    other = SimpleNamespace(log=lambda step, metrics: others.append(step), close=lambda: others.append("closed"))
    log = MetricsLog(tmp_path, {"mlflow": lambda step: Failing(where), "wandb": lambda step: other}, notes.append)
    log.open()
    for step in (10, 20):
        log.log(step, {"a": 1.0})
    log.close()
    assert notes == [
        "warning: logging.mlflow failed and gets nothing more of this run, while metrics.csv has every value: "
        "the server is gone"
    ]
    assert others == [10, 20, "closed"]
    assert [row[0] for row in read_metrics(log.path)] == [10, 20]
