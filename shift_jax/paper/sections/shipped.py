"""The section on the classifiers that come with the package."""

from __future__ import annotations

from shift_jax.paper.sections.formatting import aligned_table, section
from shift_jax.weights.shipped import shipped_weights

_TEXT = """\
`load_pretrained` reads them, and `python eval.py --weights=NAME` evaluates them. Other recipes than
the authors' trained them, so the tables below leave them out.
"""


def shipped_networks() -> str:
    """Returns the section: every shipped network with a test accuracy."""
    rows = [
        {
            "Weights": f"`{record.name}`",
            "Top-1": f"{100 * record.top1:.2f}",
            "Evaluated on": record.evaluated_on,
            "Source": record.source,
        }
        for record in shipped_weights()
        if record.top1 is not None
    ]
    return section("## Networks that come with the package", _TEXT, aligned_table(rows))
