"""Tables on the console."""

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
