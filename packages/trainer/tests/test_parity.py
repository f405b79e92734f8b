"""What docs/parity.md and docs/networks.md say is there."""

import re
from importlib import import_module
from pathlib import Path

import click
import pytest
import yaml

from tesserl_configs import RunConfig
from tesserl_configs.introspection import blocks_in, literals_in
from tesserl_configs.nn import NNConfig
from tesserl_configs.nn_rules import check
from tesserl_trainer.cli import tesserl

DOCS = Path(__file__).parents[3] / "docs"
HEADER = ["seed system", "status", "here", "note"]
STATUS = re.compile(r"built|bettered|left out|planned: (PPO|DPO|GRPO|DPO, GRPO|Beyond The Rainbow)")


def rows():
    lines = (DOCS / "parity.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    return [row for row in cells if row != HEADER and set("".join(row)) != {"-"}]


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


def is_there(name):
    """Whether a command, a public name of Python, or a key of the schema, with the value behind it, exists."""
    if name.startswith("tesserl "):
        return is_command(name.split()[1:])
    if name.startswith("tesserl_"):
        module, _, attribute = name.rpartition(".")
        return attribute in import_module(module).__all__
    data = yaml.safe_load(name)
    [(path, value)] = data.items() if isinstance(data, dict) else [(data, [])]
    fields = fields_at(path)
    allowed = {literal for field in fields for literal in literals_in(field.annotation)}
    return bool(fields) and allowed.issuperset(value if isinstance(value, list) else [value])


def is_command(words):
    group = tesserl
    for word in words:
        group = group.get_command(click.Context(group), word) if isinstance(group, click.Group) else None
    return group is not None


def fields_at(path):
    blocks, fields = [RunConfig], []
    for key in path.split("."):
        fields = [block.model_fields[key] for block in blocks if key in block.model_fields]
        blocks = [block for field in fields for block in blocks_in(field.annotation)]
    return fields


def test_every_row_has_a_status():
    wrong = [row for row in rows() if len(row) != len(HEADER) or not STATUS.fullmatch(row[1])]
    assert wrong == []
    assert len(rows()) > 150


def test_what_is_built_has_a_name_here():
    assert [row for row in rows() if row[1] in ("built", "bettered") and not names(row[2])] == []


def test_every_name_exists():
    assert [name for row in rows() for name in names(row[2]) if not is_there(name)] == []


@pytest.mark.parametrize(
    "name",
    [
        "nn.vision.widht",
        "nn.vision.kind: resnet",
        "nn.freeze: [vision, body]",
        "iqn.num_taus.kind",
        "nn.decoder.value",
        "tesserl exprot",
        "tesserl config fetch",
        "tesserl_iqn.quantile_loss",
    ],
)
def test_a_name_that_does_not_exist_is_found_out(name):
    assert not is_there(name)


def test_the_examples_of_the_networks_page_are_valid():
    text = (DOCS / "networks.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert examples
    for example in examples:
        config = NNConfig.model_validate(yaml.safe_load(example)["nn"])
        assert list(check(config, "iqn")) == []
