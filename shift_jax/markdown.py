"""Tables of rows, as Markdown and as plain text for a terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

_SHORTEST_RULE = 3
"""Dashes that Markdown wants below a heading."""


def markdown_table(
    rows: Iterable[Mapping[str, Any]],
    *,
    left: Collection[str] | None = None,
    total: bool = False,
) -> str:
    """Returns a Markdown table whose columns line up in the source too; "" without rows.

    Args:
      rows: cells by column, the same columns in every row: text, an int, a float, or None for an
        empty cell. Integers get thousands separators, floats two decimals.
      left: the columns to align on the left; None aligns columns of numbers on the right.
      total: whether the last row is a total, which is bold.
    """
    rows = list(rows)
    if not rows:
        return ""
    left = _text_columns(rows) if left is None else left
    lines = [[_text(cell).replace("|", "\\|") for cell in row.values()] for row in rows]
    if total:
        lines[-1] = [f"**{cell}**" if cell else "" for cell in lines[-1]]
    lines = [list(rows[0]), *lines]
    widths = [max(_SHORTEST_RULE, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = [
        "-" * width if name in left else "-" * (width - 1) + ":"
        for name, width in zip(rows[0], widths, strict=True)
    ]
    lines = _aligned(lines, widths, [name in left for name in rows[0]])
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def text_table(rows: Iterable[Mapping[str, Any]], *, total: bool = False) -> str:
    """Returns aligned text, numbers on the right; "" without rows.

    Args:
      rows: as for `markdown_table`.
      total: whether the last row is a total, which a rule sets apart.
    """
    rows = list(rows)
    if not rows:
        return ""
    left = _text_columns(rows)
    cells = [list(rows[0]), *([_text(cell) for cell in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    aligned = _aligned(cells, widths, [name in left for name in rows[0]])
    lines = ["  ".join(line).rstrip() for line in aligned]
    rule = "-" * max(map(len, lines))
    lines.insert(1, rule)
    if total:
        lines.insert(-1, rule)
    return "\n".join(lines)


def _aligned(lines: list[list[str]], widths: list[int], left: list[bool]) -> list[list[str]]:
    return [
        [
            cell.ljust(width) if is_left else cell.rjust(width)
            for cell, width, is_left in zip(line, widths, left, strict=True)
        ]
        for line in lines
    ]


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:,.2f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def _text_columns(rows: list[Mapping[str, Any]]) -> set[str]:
    """The columns with a cell that is no number, and empty ones."""
    return {
        name
        for name in rows[0]
        if any(isinstance(row[name], str) for row in rows) or all(row[name] is None for row in rows)
    }
