"""ShiftNet-A's train step on 1 to 256 chips, as the TPU's compiler counts it: nothing runs.

    pip install libtpu
    python benchmarks/aot_scale.py [--cells=v5e-16x2048,...] [--programs=DIR]
    python benchmarks/aot_scale.py --markdown

It compiles the step that train.py runs (bfloat16, 224×224, 1,000 classes, SGD with momentum, the
batch split over the chips) for each number of chips and global batch, and writes what a chip holds,
what it sends, and an estimate of the time. If a batch does not fit, the step computes it in more
parts. A compilation takes minutes; the script writes each row at once and skips the rows that the
table already has.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import importlib.util
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.aot_step import SLICES, Cell, program
from benchmarks.collectives import KINDS, collectives, totals, trip_counts
from benchmarks.table import write_table
from benchmarks.tpu_compiler import CHIPS
from shift_jax.files import replaced_file
from shift_jax.markdown import markdown_table

TABLE = Path(__file__).parent / "results" / "aot_scale.csv"
SECONDS_PER_HOP = 1e-6  # Approximate, to the next chip: jax-ml.github.io/scaling-book/tpus.


# Each batch on each slice, the same images per chip on one chip alone, and shared states. After a
# cell that does not fit, such as 1,024 images on a chip, larger ones need no compilation.
CELLS = (
    *(
        Cell(name, batch)
        for name in ("v5e-16", "v5e-256", "v4-128", "v5e-1")
        for batch in (2048, 4096, 16384)
    ),
    Cell("v5e-1", 64),
    *(Cell("v5e-16", 2048, fsdp) for fsdp in (4, 16)),
)


def row_of(cell: Cell, found: dict) -> dict:
    """Returns the row of the table; all figures but images_per_s are those of one chip."""
    where = SLICES[cell.slice]
    chip = CHIPS[where.chip]
    row = {
        "cell": str(cell),
        "chip": f"TPU {where.chip}, compiled only",
        "chips": cell.chips,
        "global_batch": cell.batch,
        "batch_per_chip": cell.batch // cell.chips,
        "fsdp": cell.fsdp,
        "accumulation_steps": cell.accumulation,
        "hbm_gb": f"{where.hbm_bytes / 1e9:.2f}",
        "jax": found["jax"],
        "libtpu": found["libtpu"],
    }
    if "error" in found:
        return {**row, "fits": "no"}
    used = sum(found[key] for key in ("argument_bytes", "output_bytes", "temporary_bytes"))
    sent = collectives(found["text"], cell.chips)
    row |= {
        "fits": "yes",
        "used_gb": f"{(used - found['alias_bytes']) / 1e9:.2f}",
        "temporary_gb": f"{found['temporary_bytes'] / 1e9:.2f}",
        "state_mb": f"{found['output_bytes'] / 1e6:.2f}",
        "state_by_shardings_mb": f"{found['state_bytes'] / 1e6:.2f}",
    }
    for kind in KINDS:
        count, size = totals(sent).get(kind, (0, 0))
        name = kind.replace("-", "_")
        row |= {name: count, f"{name}_mb": f"{size / 1e6:.2f}"}
    link_bytes = sum(one.times * one.link_bytes for one in sent)
    sending = link_bytes / where.ici_bytes_per_s
    latency = where.hops * SECONDS_PER_HOP * sum(one.times * one.passes for one in sent)
    row |= {
        "link_mb": f"{link_bytes / 1e6:.2f}",
        "collective_ms": f"{sending * 1e3:.3f}",
        "latency_ms": f"{latency * 1e3:.3f}",
    }
    # The compiler counts the body of a loop once. The loop over the parts has everything but the
    # update, which reads parameters, momentum and gradients and writes the first two. What other
    # loops have is unknown.
    loops, parts = trip_counts(found["text"]), cell.accumulation
    if loops != [parts] * (parts > 1):
        return row
    update = 5 * found["params_bytes"] if parts > 1 else 0
    accessed = (found["bytes_accessed"] - update) * parts + update
    flops = found["flops"] * parts
    compute = max(flops / chip.flops, accessed / chip.bandwidth)
    return row | {
        "gigaflops": f"{flops / 1e9:.0f}",
        "accessed_gb": f"{accessed / 1e9:.2f}",
        "compute_ms": f"{compute * 1e3:.3f}",
        "images_per_s": f"{cell.batch / (compute + sending):.0f}",
        "efficiency": f"{compute / (compute + sending):.3f}",
        "efficiency_with_latency": f"{compute / (compute + sending + latency):.3f}",
    }


def kept_program(cell: Cell, directory: Path | None) -> dict:
    """Returns the program from the directory or, if it is not there, from the compiler."""
    path = directory / f"{str(cell).replace('/', '_')}.json.gz" if directory else None
    if path and path.exists():
        return json.loads(gzip.decompress(path.read_bytes()))
    found = program(cell)
    if path:
        directory.mkdir(parents=True, exist_ok=True)
        with replaced_file(path) as temporary:
            temporary.write_bytes(gzip.compress(json.dumps(found).encode()))
    return found


def read_table() -> dict[str, dict]:
    if not TABLE.exists():
        return {}
    with TABLE.open(newline="") as file:
        return {row["cell"]: row for row in csv.DictReader(file)}


def row_of_less(cell: Cell, rows: dict[str, dict]) -> dict | None:
    """Returns a row of the table that no more images per chip failed to fit, if there is one."""
    for name, row in rows.items():
        other = Cell.parse(name)
        same_chip = SLICES[other.slice].chip == SLICES[cell.slice].chip
        if row["fits"] == "no" and other != cell and same_chip and other.part <= cell.part:
            return row
    return None


def measure(cell: Cell, rows: dict[str, dict], flags) -> None:
    """Adds the cell to the rows and to the table, in more and more parts until it fits."""
    while True:
        row = rows.get(str(cell))
        if row is None or flags.again:
            too_large = row_of_less(cell, rows)
            found = (
                {"error": "", "jax": too_large["jax"], "libtpu": too_large["libtpu"]}
                if too_large
                else kept_program(cell, flags.programs)
            )
            row = rows[str(cell)] = row_of(cell, found)
            print("  ".join(f"{key}={value}" for key, value in row.items()), flush=True)
            write_table(TABLE, list(rows.values()))
        if row["fits"] == "yes":
            return
        cell = cell._replace(accumulation=2 * cell.accumulation)


HEADINGS = {
    "cell": "Chips × batch",
    "batch_per_chip": "Images a chip",
    "accumulation_steps": "Parts",
    "used_gb": "GB of a chip",
    "hbm_gb": "of",
    "compute_ms": "Compute, ms",
    "all_reduce": "All-reduces",
    "link_mb": "MB sent",
    "collective_ms": "Sending, ms",
    "latency_ms": "Latency, ms",
    "images_per_s": "Images/s",
    "efficiency": "Efficiency",
    "efficiency_with_latency": "with latency",
}
FSDP_HEADINGS = {
    "fsdp": "fsdp",
    "state_mb": "State of a chip, MB",
    "state_by_shardings_mb": "by its shardings",
    "all_gather": "all-gather",
    "all_gather_mb": "all-gather, MB",
    "reduce_scatter": "reduce-scatter",
    "reduce_scatter_mb": "reduce-scatter, MB",
    "collective_permute": "permute",
    "collective_permute_mb": "permute, MB",
    "all_reduce": "all-reduce",
    "all_reduce_mb": "all-reduce, MB",
    "link_mb": "MB sent",
    "used_gb": "GB of a chip",
}


def markdown(rows: dict[str, dict]) -> str:
    """Returns the two tables of docs/distributed.md."""
    cells = {Cell.parse(name): row for name, row in rows.items()}
    cells = dict(sorted(cells.items(), key=lambda item: (list(SLICES).index(item[0][0]), item[0])))
    sharded = [cell for cell in cells if cell.fsdp > 1]
    compared = {cell._replace(fsdp=1) for cell in sharded}
    return "\n\n".join(
        markdown_table(
            [{title: row.get(key) or "–" for key, title in headings.items()} for row in some],
            left=(HEADINGS["cell"],),
        )
        for headings, some in (
            (HEADINGS, [row for cell, row in cells.items() if cell.fsdp == 1]),
            (FSDP_HEADINGS, [cells[cell] for cell in cells if cell in compared or cell in sharded]),
        )
    )


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", default=",".join(map(str, CELLS)), help="such as v5e-16x2048")
    parser.add_argument("--again", action="store_true", help="also the cells that the table has")
    parser.add_argument("--programs", type=Path, help="a directory to keep compiled programs in")
    parser.add_argument(
        "--markdown", action="store_true", help="print the tables and compile nothing"
    )
    flags = parser.parse_args(argv)
    rows = read_table()
    if flags.markdown:
        print(markdown(rows))
        return 0
    if importlib.util.find_spec("libtpu") is None:
        print("The TPU's compiler is missing: `pip install libtpu` and run this again.")
        return 2
    for text in flags.cells.split(","):
        measure(Cell.parse(text), rows, flags)
    return 0


if __name__ == "__main__":
    sys.exit(main())
