"""Tables of results, once for the terminal and once for Markdown."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import rich.box
import rich.console
import rich.table
import rich.text


class Estimate(NamedTuple):
    """A value with its interval. Any tuple or list ``(value, low, high)`` is shown in the same way."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Column:
    """How a column is shown.

    Attributes:
      name: the heading.
      digits: after the decimal point.
      percent: whether fractions are shown in percent, without the sign.
      best: whether the largest or the smallest value of the column is set in bold.
    """

    name: str
    digits: int = 1
    percent: bool = False
    best: Literal["max", "min"] | None = None


class Table:
    """Rows of labels, numbers, estimates ``(value, low, high)`` and gaps (``None``).

    Example::

        table = Table(["method", Column("accuracy", percent=True, best="max"), Column("published", percent=True)])
        table.add("zero-shot", (0.752, 0.741, 0.763), 0.747)
        table.add("OTTER", (0.812, 0.801, 0.823), None)
        table.print()

    Args:
      columns: names or :class:`Column`; numbers of a plain name are shown with one digit.
      title: above the table.
    """

    def __init__(self, columns: Sequence[str | Column], *, title: str = ""):
        self.columns = [Column(column) if isinstance(column, str) else column for column in columns]
        self.title = title
        self.rows: list[tuple[Any, ...]] = []

    def add(self, *cells: Any) -> None:
        """Adds a row.

        Raises:
          ValueError: if the row has not as many cells as there are columns, or a cell cannot be shown.
        """
        if len(cells) != len(self.columns):
            raise ValueError(f"a row must have {len(self.columns)} cells, got {len(cells)}: {cells}")
        for cell, column in zip(cells, self.columns, strict=True):
            _show(cell, column)
        self.rows.append(cells)

    def to_markdown(self) -> str:
        """Returns the table in Markdown, numbers to the right."""
        cells = [
            [_escape(f"**{text}**" if bold else text) for text, bold in row]
            for row in [[(column.name, False) for column in self.columns], *self._shown()]
        ]
        widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(self.columns))]
        right = [self._is_right(i) for i in range(len(self.columns))]
        rule = ["-" * (w - 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True)]
        lines = [
            "| "
            + " | ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True))
            + " |"
            for row in [cells[0], rule, *cells[1:]]
        ]
        return "\n".join([*([f"**{self.title}**", ""] if self.title else []), *lines])

    def print(self, console: rich.console.Console | None = None) -> None:
        """Prints the table to the terminal."""
        title = rich.text.Text(self.title) if self.title else None
        table = rich.table.Table(title=title, box=rich.box.SIMPLE_HEAD, title_justify="left")
        for i, column in enumerate(self.columns):
            table.add_column(rich.text.Text(column.name), justify="right" if self._is_right(i) else "left")
        for row in self._shown():
            table.add_row(*(rich.text.Text(text, style="bold" if bold else "") for text, bold in row))
        (console or rich.console.Console()).print(table)

    def _shown(self) -> list[list[tuple[str, bool]]]:
        best = [self._best(i) for i in range(len(self.columns))]
        return [
            [
                (
                    text := _show(cell, column),
                    best[i] is not None and text != "" and _show(_value(cell), column) == best[i],
                )
                for i, (cell, column) in enumerate(zip(row, self.columns, strict=True))
            ]
            for row in self.rows
        ]

    def _best(self, i: int) -> str | None:
        column = self.columns[i]
        values = [value for row in self.rows if (value := _value(row[i])) is not None and value == value]
        if column.best is None or not values:
            return None
        return _show(max(values) if column.best == "max" else min(values), column)

    def _is_right(self, i: int) -> bool:
        return bool(self.rows) and not any(isinstance(row[i], str) for row in self.rows)


def _value(cell: Any) -> float | None:
    if cell is None or isinstance(cell, str | bool):
        return None
    return float(cell[0] if isinstance(cell, tuple | list) else cell)


def _show(cell: Any, column: Column) -> str:
    match cell:
        case None:
            return "–"
        case str():
            return cell
        case bool():
            return "yes" if cell else "no"
        case tuple() | list() if len(cell) == 3:
            value, low, high = (_show(float(part), column) for part in cell)
            return f"{value} [{low}, {high}]"
    # Counts stay whole; jax and numpy scalars say by their dtype whether they are one.
    if hasattr(cell, "item"):
        cell = cell.item()
    if isinstance(cell, int) and not column.percent:
        return f"{cell:,}"
    if not isinstance(cell, int | float):
        raise ValueError(
            f"a cell of column {column.name!r} must be a string, a number, (value, low, high) or None, got {cell!r}"
        )
    return f"{cell * 100 if column.percent else cell:.{column.digits}f}"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
