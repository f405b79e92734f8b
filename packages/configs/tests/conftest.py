"""A configuration that is valid, and ways to break it."""

from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tesserl_configs import ConfigError, algorithms, load_config

MINIMAL = """\
total_steps: 1_000
environment: {id: CartPole-v1}
nn:
  vector: {kind: mlp}
algorithm: iqn
replay: {kind: uniform, warmup_steps: 100}
"""


@pytest.fixture(autouse=True)
def _no_other_package_of_this_repository(monkeypatch):
    """Hide the algorithms that installed packages of this repository declare: no result depends on them."""

    def of_others(**selection):
        return [point for point in entry_points(**selection) if not point.dist.name.startswith("tesserl-")]

    monkeypatch.setattr(algorithms, "entry_points", of_others)


@pytest.fixture
def write(tmp_path: Path):
    """Writes text to a file and returns its path."""

    def write_text(text: str = MINIMAL, name: str = "x.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write_text


@pytest.fixture
def load(write):
    """Loads `MINIMAL` with lines added and overrides applied."""

    def load_text(added: str = "", *overrides: str):
        return load_config(write(MINIMAL + added), overrides)

    return load_text


@pytest.fixture
def errors_in(write):
    """The messages of a text that does not load, without the directory of its file."""

    def messages(text: str, *overrides: str) -> list[str]:
        path = write(text)
        with pytest.raises(ConfigError) as caught:
            load_config(path, overrides)
        return [message.replace(f"{path.parent}/", "") for message in caught.value.messages]

    return messages


@pytest.fixture
def errors_of(errors_in):
    """The messages of `MINIMAL` with overrides that do not fit."""
    return lambda *overrides: errors_in(MINIMAL, *overrides)
