"""Writes a benchmark's rows."""

import csv
from pathlib import Path


def write_table(path: Path, rows: list[dict]) -> None:
    """Writes the rows as CSV, with the columns of all of them in order of appearance."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {path.name}")
