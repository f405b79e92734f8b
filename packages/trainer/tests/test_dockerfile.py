"""The Dockerfile at the root of the repository: it installs the packages that there are."""

import re
from importlib.metadata import metadata
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel_free

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_wheels_of_all_packages_are_built():
    built = set(re.findall(r"\./packages/([\w-]+)", TEXT))
    assert built == {path.parent.name for path in ROOT.glob("packages/*/pyproject.toml")}


def test_the_extras_exist():
    (extras,) = re.findall(r'"tesserl-trainer\[([\w,]+)\]"', TEXT)
    assert set(extras.split(",")) <= set(metadata("tesserl-trainer").get_all("Provides-Extra"))


def test_what_is_copied_is_sent_to_the_builder():
    sent = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [source for line in re.findall(r"^COPY (.+) \S+$", TEXT, re.MULTILINE) for source in line.split()]
    assert copied == ["constraints.txt", "packages"]
    for source in copied:
        assert any(line.startswith(f"!{source}") for line in sent), source
    read = {"LICENSE", "README.md", "pyproject.toml", "src"}  # by the build of a wheel
    assert read == {line.removeprefix("!packages/*/") for line in sent if line.startswith("!packages/")}
