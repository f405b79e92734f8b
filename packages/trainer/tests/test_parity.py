"""Everything that docs/parity.md, docs/ppo.md and docs/networks.md name exists."""

import re
from importlib import import_module
from pathlib import Path

import click
import pytest
import yaml

from tesserl_configs import RunConfig
from tesserl_configs.importer.catalogue import KEYS
from tesserl_configs.introspection import blocks_in, literals_in
from tesserl_configs.nn import NNConfig
from tesserl_configs.nn_rules import check
from tesserl_trainer.cli import tesserl

pytestmark = pytest.mark.kernel_free

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
HEADER = ["seed system", "status", "here", "note"]
CHECKLIST = ["detail", "here", "note", "test"]
STATUS = re.compile(r"built|bettered|left out|planned: Beyond The Rainbow")


def rows():
    return [row for row in cells_of("parity.md") if row != HEADER]


def details():
    """The rows of the checklist of PPO's implementation details, whose tables alone have its columns."""
    numbered = [row for row in cells_of("ppo.md") if len(row) == len(CHECKLIST) and row != CHECKLIST]
    return [row for row in numbered if re.match(r"\d+\. ", row[0])]


def cells_of(page):
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    return [row for row in cells if set("".join(row)) != {"-"}]


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


def is_there(name):
    """Return whether a command, a public Python name, or a key of the schema with its value exists."""
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


def test_every_key_of_the_seed_system_has_a_row():
    answered = {name.lstrip(".") for row in rows() for name in names(row[0])}
    patterns = [re.escape(name).replace(r"\*", r"[\w.]+") for name in answered if name != "btr"]
    assert [key for key in KEYS if not any(re.search(rf"(^|\.){pattern}$", key) for pattern in patterns)] == []


def test_every_detail_of_ppo_has_its_place_and_its_test():
    numbers = [int(row[0].split(".")[0]) for row in details()]
    assert numbers == [*range(1, 38), *range(1, 5)]  # 37, and four that are not counted among them
    assert [name for row in details() for name in names(row[1]) if not is_there(name)] == []
    assert [name for row in details() for name in names(row[3]) if not is_test(name)] == []
    assert [row[0] for row in details() if names(row[1]) and not names(row[3])] == []


def is_test(name):
    """Return whether ``package/file::test`` exists."""
    package, _, test = name.partition("/")
    file, _, function = test.partition("::")
    path = ROOT / "packages" / package / "tests" / f"{file}.py"
    return path.is_file() and f"\ndef {function}(" in path.read_text(encoding="utf-8")


def test_a_test_that_does_not_exist_is_found_out():
    assert is_test("trainer/test_parity::test_every_row_has_a_status")
    assert not is_test("trainer/test_parity::test_every_row")
    assert not is_test("trainer/test_parities::test_every_row_has_a_status")


@pytest.mark.parametrize(
    "name",
    [
        "nn.vision.widht",
        "nn.vision.kind: resnet",
        "nn.freeze: [vision, torso]",
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
