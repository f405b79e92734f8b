"""Configurations that somebody has broken: files and blocks of this repository after a few random changes.

Everything follows from one seed. A case is the bytes of a file; `shrunk` takes lines out of one that fails.
"""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Callable, Iterator
from typing import Any

from tesserl_configs.document import parse, render
from tesserl_configs.introspection import all_keys, field_at, literals_in

Path = tuple[Any, ...]

NUMBERS = (
    0, 1, -1, 2, 3, 7, 64, 1_000, 65_536, 65_537, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**6 + 1,
    10**15, 10**16, 10**30, 10**400, -(10**30), 0.5, -0.0, 1.0, 1.5, 1e-12, 1e-13, 1e-45, 5e-324, 1e9, 1.1e9, 1e38,
    1e39, 1e308, 0.9999999999999999, float("inf"), float("-inf"), float("nan"),
)  # fmt: skip
TEXTS = (
    "", " ", "x", "none", "null", "true", "1e-4", "1_000", "yes", "a.b", "a: b", "# c", "../..", "/", "~", "a" * 300,
    "a" * 5_000, "{task}", "\N{GRINNING FACE}", "\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 80, "e\u0301", "\u202eabc", "a\nb",
    "a\0b", "\x7f", "cuda", "cuda:0", "cuda:99", "os:system", "%s{0}", "-", "<<", "*x", "&x",
    "!!python/object:os.system",
)  # fmt: skip
OTHERS: tuple[Any, ...] = (
    None, True, False, [], {}, [1], ["x"], [[]], [None], {"kind": "none"}, {"kind": []}, {"kind": {}}, {"kind": 1},
    {"kind": "linear", "knots": [[0, 1.0], [10, 0.1]]}, {"kind": "linear", "knots": []},
    {"kind": "exponential", "knots": [[0, 0.0]]}, {"": 1}, {"a": {"b": {"c": [1, {"d": 2}]}}},
)  # fmt: skip
WHOLE_FILES = (
    b"", b"\n\n", b"# only a comment\n", b"---\n", b"--- \n...\n", b"null\n", b"[]\n", b"text\n", b"a: 1\n---\nb: 2\n",
    b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b"\x80abc", b"{", b"a: [", b"\t- x", b"a: *b\n", b"a: &x [*x]\n",
    b"a: !x 1\n",
    b"a: |\n  b\n c", b"? [a]\n: b\n", b"%YAML 9.9\n---\na: 1\n", b'"\\ud800": 1\n', b'a: "\\U00110000"\n',
    b"a: " + b"[" * 5_000, b"a: " + b"9" * 5_000 + b"\n", b"&a a: &b {c: *b}\n",
    b"a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
    b"d: [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n",
)  # fmt: skip


def places(data: Any, path: Path = ()) -> Iterator[Path]:
    """Paths of everything below the top of plain data."""
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in entries:
        yield (*path, key)
        yield from places(value, (*path, key))


def at(data: Any, path: Path) -> Any:
    """Return the value at a path."""
    for key in path:
        data = data[key]
    return data


def put(data: Any, path: Path, value: Any) -> None:
    """Changes what stands at a path."""
    at(data, path[:-1])[path[-1]] = value


def any_value(source: random.Random) -> Any:
    """A number, a text or something else."""
    return copy.deepcopy(source.choice(source.choice((NUMBERS, TEXTS, OTHERS))))


# --- changes of plain data ---------------------------------------------------------------------------------------


def delete(source: random.Random, data: Any, path: Path, pool: Any) -> None:
    """Removes a key or an entry."""
    del at(data, path[:-1])[path[-1]]


def rename(source: random.Random, data: Any, path: Path, pool: Any) -> None:
    """Misspells a key."""
    block, key = at(data, path[:-1]), path[-1]
    if isinstance(block, dict):
        spelled = (
            key[:-1],
            key + "s",
            key.upper(),
            key[::-1],
            f"{key}.{key}",
            key.replace("_", "-"),
            source.choice(TEXTS),
        )
        block[source.choice(spelled)] = block.pop(key)


def replace(source: random.Random, data: Any, path: Path, pool: Any) -> None:
    """Puts something of any type in place of a value."""
    put(data, path, any_value(source))


def extreme(source: random.Random, data: Any, path: Path, pool: Any) -> None:
    """Puts another number in place of one, the last one of the file if need be."""
    numbers = [each for each in places(data) if isinstance(at(data, each), int | float)]
    put(data, source.choice(numbers or [path]), source.choice(NUMBERS))


def nudge(source: random.Random, data: Any, path: Path, pool: Any) -> None:
    """Changes a number a little, a truth value, or a word to another one that is legal there."""
    value = at(data, path)
    field = field_at(list(path), data)
    words = literals_in(field.annotation) if field else ()
    if isinstance(value, bool):
        put(data, path, not value)
    elif isinstance(value, int):
        put(data, path, source.choice((value + 1, value - 1, 2 * value, value // 2, 1)))
    elif isinstance(value, float):
        put(data, path, source.choice((2 * value, value / 2, value / 10, 0.0, 1.0)))
    elif isinstance(value, str) and words:
        put(data, path, source.choice(words))


def wrap(source: random.Random, data: Any, path: Path, pool: Any) -> None:
    """Nests a value, sometimes far too deeply."""
    value = at(data, path)
    for _ in range(source.choice((1, 1, 2, 40))):
        value = source.choice(({"kind": value}, {str(path[-1]): value}, [value]))
    put(data, path, source.choice((value, [value, value])))


def another_kind(source: random.Random, data: Any, path: Path, pool: Any) -> None:
    """Chooses another member of a tagged union, keys of the old one left or taken away."""
    tagged = [each for each in places(data) if each[-1] == "kind"]
    if not tagged:
        return
    chosen = source.choice(tagged)
    field = field_at(list(chosen), data)
    kinds = sorted({str(at(each, place)) for each in pool for place in places(each) if place[-1] == "kind"})
    if field is not None and source.random() < 0.3:
        kinds = [str(kind) for kind in literals_in(field.annotation)] or kinds
    block = at(data, chosen[:-1])
    kind = source.choice(kinds)
    if source.random() < 0.5:
        block.clear()
    block["kind"] = kind


def transplant(source: random.Random, data: Any, path: Path, pool: Any) -> None:
    """Puts a part of another file in the place of one here, mostly at the same path."""
    other = source.choice(pool)
    there = list(places(other))
    same = [each for each in there if each[-1] == path[-1]] or there
    put(data, path, copy.deepcopy(at(other, source.choice(same if source.random() < 0.8 else there))))


def insert(source: random.Random, data: Any, path: Path, pool: Any) -> None:
    """Adds a key that the schema has at some place, with a value from another file where one has it."""
    block, key = source.choice(KEYS)
    here = data
    for part in block.split(".") if block else []:
        if not isinstance(here.get(part), dict):
            here[part] = {}
        here = here[part]
    known = [at(other, each) for other in pool for each in places(other) if each[-1] == key]
    here[key] = copy.deepcopy(source.choice(known)) if known and source.random() < 0.7 else any_value(source)


KEYS = sorted(set(all_keys()))
MILD = (nudge, nudge, nudge, transplant, insert, another_kind)
WILD = (delete, rename, replace, replace, extreme, extreme, nudge, wrap, another_kind, transplant, insert)

# --- changes of text ---------------------------------------------------------------------------------------------


def of_text(source: random.Random, text: str) -> bytes:
    """Doubles, drops or indents a line, adds anchors, aliases and merge keys, or writes in another encoding."""
    lines = text.splitlines(keepends=True)
    index = source.randrange(len(lines))
    line = lines[index]
    match source.randrange(9):
        case 0:
            lines.insert(source.randrange(len(lines)), line)
        case 1:
            del lines[index]
        case 2:
            lines[index] = source.choice(("  ", "\t", "- ", "? ", "! ", "@", "\x07")) + line
        case 3:
            lines[index] = line.replace(": ", ": &x ", 1)
            lines.append(source.choice(("extra: *x\n", "name: *x\n", "seed: *y\n", "nn: {<<: *x}\n", "<<: *x\n")))
        case 4:
            lines[index] = line.replace(
                ": ", source.choice((": !!str ", ": !!int ", ": !!map ", ": !!python/name:os ")), 1
            )
        case 5:
            return text.encode(source.choice(("utf-16", "utf-32", "utf-8-sig")))
        case 6:
            return text.encode().replace(b":", source.choice((b"\xe9:", b"\xff", b"\x00", b" :", b"::")), 1)
        case 7:
            lines[index] = line.rstrip("\n") + source.choice(
                (" # \N{GRINNING FACE}\n", "\r\n", "\u2028\n", "\x85\n", "#\n")
            )
        case _:
            return text.encode()[: source.randrange(len(text))]
    return "".join(lines).encode()


@functools.cache
def _parsed(text: str) -> Any:
    return parse(text).data


def mutant(seed: str, bases: list[str], *, mild: bool = False) -> bytes:
    """A file with random mistakes.

    Args:
        seed: of the case.
        bases: texts of valid files.
        mild: mostly legal changes, so that many a file stays valid.
    """
    source = random.Random(seed)
    if not mild and source.random() < 0.02:
        return source.choice(WHOLE_FILES)
    pool = [_parsed(text) for text in bases]
    data = copy.deepcopy(source.choice(pool))
    for _ in range(source.choice((1, 1, 2, 3, 5))):
        change: Callable[..., None] = source.choice(MILD if mild else WILD)
        if found := list(places(data)):
            change(source, data, source.choice(found), pool)
    text = "".join(character for character in render(data) if character != "\ufeff")
    return of_text(source, text) if not mild and source.random() < 0.2 else text.encode()


def override(seed: str, bases: list[str]) -> tuple[str, str]:
    """A valid file, and a ``KEY=VALUE`` to load it with."""
    source = random.Random(seed)
    text = source.choice(bases)
    path = ".".join(map(str, source.choice(list(places(_parsed(text))))))
    block, key = source.choice(KEYS)
    path = source.choice(
        (path, path, f"{block}.{key}".lstrip("."), f"{path}.{source.choice(TEXTS)}", source.choice(TEXTS))
    )
    value = render({"x": any_value(source)}).partition("x:")[2].strip()
    return text, source.choice((f"{path}={value}", f"{path}={source.choice(TEXTS)}", path, f" {path} = {value} "))


def shrunk(content: bytes, fails: Callable[[bytes], bool]) -> bytes:
    """The content with as many lines taken out as still fail; blocks of lines first, then each alone."""
    lines = content.splitlines(keepends=True)
    size = max(len(lines) // 2, 1)
    while size:
        index = 0
        while index < len(lines):
            fewer = lines[:index] + lines[index + size :]
            if fails(b"".join(fewer)):
                lines = fewer
            else:
                index += size
        size //= 2
    return b"".join(lines)
