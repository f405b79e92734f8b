"""Tables on the console."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable

from tesserl_analysis import Table


def rich_table(table: Table) -> RichTable:
    """Lay a table out for the console: text left, numbers right."""
    shown = RichTable(title=table.title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for column, name in enumerate(table.header):
        shown.add_column(name, justify="right" if column else "left")
    for row in table.rows:
        shown.add_row(*row)
    return shown


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return one line of text per row, with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
