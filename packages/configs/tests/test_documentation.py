"""Examples on the page about configurations load and do as the page says."""

import re
from pathlib import Path

import pytest

from tesserl_configs import dump_config, load_config
from tesserl_configs.algorithms import BUILT_IN
from tesserl_configs.optimizer import Adam

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: re.search(r"algorithm: (\w+)", text)[1])
def test_an_example_of_the_page_loads(write, example):
    config = load_config(write(example))
    assert load_config(write(dump_config(config), "again.yaml")) == config


def test_every_algorithm_has_an_example():
    assert {re.search(r"algorithm: (\w+)", text)[1] for text in EXAMPLES} == {"iqn", "ppo", "grpo", "dpo", "cpl"}


def test_the_table_of_defaults_by_algorithm_is_true():
    page = PAGE.read_text(encoding="utf-8")
    rows = {
        key: cells
        for key, *cells in re.findall(r"^\| `([\w.]+)`.*? \| (.*?) \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    }
    for key in ("learning_rate", "eps"):
        iqn, policies, preferences = (float(cell.split()[0]) for cell in rows[f"optimizer.{key}"])
        assert getattr(Adam(), key) == iqn
        assert {BUILT_IN[name].optimizer[key] for name in ("ppo", "grpo")} == {policies}
        assert {BUILT_IN[name].optimizer[key] for name in ("dpo", "cpl")} == {preferences}
    assert [cell.split("`")[1] for cell in rows["nn.heads.hidden_sizes"]] == ["[512]", "[]", "[]"]
    assert {name: algorithm.hidden_sizes for name, algorithm in BUILT_IN.items()} == {
        "iqn": None, "ppo": (), "grpo": (), "dpo": (), "cpl": (),
    }  # fmt: skip
