"""The paper's tables beside the exact counts of this package's networks."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Sequence

from shift_jax.errors import InputError
from shift_jax.markdown import markdown_table, text_table
from shift_jax.paper.tables import cifar, other
from shift_jax.paper.tables.parts import Part

_TABLES: dict[int, Callable[[], list[Part]]] = {
    1: cifar.table_1,
    2: cifar.table_2,
    3: other.table_3,
    4: cifar.table_4,
    5: cifar.table_5,
    6: other.table_6,
    7: other.table_7,
    9: other.table_9,
    10: other.table_10,
}
_LEGEND = (
    "rounded, truncated: how the paper's cell follows from the exact number; no: in neither way. "
    "The paper's parameters and FLOPs without a letter are in millions."
)


def paper_tables(numbers: Sequence[int] | None = None) -> list[Part]:
    """Counts the networks of the paper's tables.

    Args:
      numbers: the tables; None for all of them.

    Raises:
      InputError: a table that does not exist or has no parameters or FLOPs.
    """
    for number in numbers or ():
        if number not in _TABLES:
            raise InputError(
                f"There is no Table {number} of parameters or FLOPs in the paper: expected one of "
                f"{', '.join(map(str, _TABLES))}."
            )
    return [part for number in numbers or _TABLES for part in _TABLES[number]()]


def as_text(parts: Sequence[Part], markdown: bool = False) -> str:
    """Returns the tables as aligned text or as Markdown, with numbered notes below each."""
    blocks = [_block(part, markdown) for part in parts]
    return "\n\n".join([*blocks, textwrap.fill(_LEGEND, 100)])


def as_json(parts: Sequence[Part]) -> str:
    """Returns the tables as one JSON list; counts are integers, cells of the paper are text."""
    return json.dumps([vars(part) for part in parts], indent=2, ensure_ascii=False)


def _block(part: Part, markdown: bool) -> str:
    rows, notes = [], []
    for row in part.rows:
        cells = {column: cell for column, cell in row.items() if column != "note"}
        if note := row.get("note"):
            if note not in notes:
                notes.append(note)
            first = next(iter(cells))
            cells[first] = f"{cells[first]} [{notes.index(note) + 1}]"
        rows.append(cells)
    title = f"Table {part.table}: {part.title}"
    remarks = [f"[{number}] {note}" for number, note in enumerate(notes, start=1)]
    remarks.extend(part.remarks)
    if markdown:
        lines = [f"### {title}", "", markdown_table(rows), ""]
        lines += [f"- {remark}" for remark in remarks]
    else:
        lines = [title, text_table(rows)]
        lines += [textwrap.fill(remark, 100) for remark in remarks]
    return "\n".join(lines).rstrip()
