"""Rows of cells as text, Markdown or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any


def text_grid(columns: Sequence[str], rows: Sequence[Sequence[Any]], total: bool = False) -> str:
    """Returns aligned text, numbers to the right and with thousands separators.

    Args:
      columns: headings.
      rows: one cell per column: text, int, float or None for an empty one.
      total: whether the last row is a total, set apart by a line.
    """
    cells = [list(columns), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numeric = _numeric(columns, rows)
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    ]
    rule = "-" * max(map(len, lines))
    lines.insert(1, rule)
    if total:
        lines.insert(-1, rule)
    return "\n".join(lines)


def markdown_grid(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], total: bool = False
) -> str:
    """Returns a Markdown table, its arguments as `text_grid`'s; a total is bold."""
    lines = [[_text(cell).replace("|", "\\|") for cell in row] for row in rows]
    if total:
        lines[-1] = [f"**{cell}**" if cell else "" for cell in lines[-1]]
    rule = ["---:" if right else "---" for right in _numeric(columns, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [list(columns), rule, *lines])


def csv_grid(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Returns CSV with plain numbers and no total."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue().rstrip("\n")


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:,.2f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def _numeric(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[bool]:
    return [
        any(isinstance(row[i], int | float) for row in rows)
        and all(row[i] is None or isinstance(row[i], int | float) for row in rows)
        for i in range(len(columns))
    ]
