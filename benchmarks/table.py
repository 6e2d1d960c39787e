"""Writes a benchmark's rows."""

import csv
from pathlib import Path

from shift_jax.files import replaced_file


def write_table(path: Path, rows: list[dict]) -> None:
    """Writes the rows as CSV, with the columns of all of them in order of appearance."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(path) as temporary, temporary.open("w", newline="") as file:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {path.name}")
