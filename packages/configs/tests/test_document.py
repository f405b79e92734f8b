import pytest

from tesserl_configs.document import parse, render


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.0e-4", 1e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1_000.5", -1000.5),
        ("-.inf", float("-inf")),
        ("60_000", 60_000),
        ("+7", 7),
        ("010", 10),
        ("0x10", "0x10"),
        ("12:30:45", "12:30:45"),
        ("2026-11-21", "2026-11-21"),
        ("yes", "yes"),
        ("off", "off"),
        ("True", True),
        ("false", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("none", "none"),
        ("'1'", "1"),
        ("e5", "e5"),
        ("1e", "1e"),
        ("_1", "_1"),
        ("!!str 5", "5"),
        ("!!float 5", 5.0),
    ],
)
def test_scalars_are_read_by_yaml_1_2_and_with_underscores(text, value):
    read = parse(f"key: {text}\n").data["key"]
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize(
    "value",
    ["1e-4", "1_0", "true", "null", "~", "", "yes", " padded ", "a: b", "# c", "é", "two\nlines", 1e-5, 1e16, 1e300,
     -0.0, 10**30, True, None, [], {}, [[1, "2"], {"a": [None]}]],
    ids=repr,
)  # fmt: skip
def test_what_is_rendered_is_read_back(value):
    assert parse(render({"key": value})).data == {"key": value}
    assert type(parse(render({"key": value})).data["key"]) is type(value)


def test_lines_are_those_of_the_keys():
    document = parse("a:\n  b: 1\n  c:\n    - x\n    - {d: 2,\n       e: 3}\n")
    assert document.lines == {"a": 1, "a.b": 2, "a.c": 3, "a.c.0": 4, "a.c.1": 5, "a.c.1.d": 5, "a.c.1.e": 6}


def test_an_alias_stands_for_its_anchor():
    assert parse("a: &x {b: [1]}\nc: *x\n").data == {"a": {"b": [1]}, "c": {"b": [1]}}
