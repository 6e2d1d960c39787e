"""Generates pages of the site: the README, each command's --help, and the fields of a config."""

from __future__ import annotations

import re
from pathlib import Path

from shift_jax.commands.dispatch import COMMANDS, command
from shift_jax.config import (
    ClassificationConfig,
    ExperimentConfig,
    FacesConfig,
    StyleConfig,
    fields_of,
)
from shift_jax.markdown import markdown_table

ROOT = Path(__file__).parents[1]


def on_page_markdown(markdown: str, page, **_) -> str:
    """MkDocs calls this for every page."""
    generated = {"index.md": _overview, "commands.md": _commands}.get(page.file.src_uri)
    return generated() if generated else markdown


def _overview() -> str:
    """The README, with links as the site has them."""

    def on_the_site(link: re.Match) -> str:
        label, target = link.groups()
        inside = target.removeprefix("docs/")
        if target.startswith("http") or (ROOT / "docs" / inside).exists():
            return f"[{label}]({inside})"
        return label  # The site has no such file.

    return re.sub(r"\[([^\]]*)\]\(([^)]+)\)", on_the_site, (ROOT / "README.md").read_text())


def _commands() -> str:
    parts = [
        "# Commands\n",
        "Every command is `shift-jax NAME …` and also `python -m shift_jax.commands.NAME …`. Flags "
        "are written `--flag=value` or `--flag value`. `python train.py` and `python eval.py` are "
        "`train` and `eval` from a checkout. "
        "[Exit codes](distributed.md#fault-tolerance-and-exit-codes) are the same everywhere.\n",
    ]
    for name in COMMANDS:
        text = command(name).line.format_help()
        parts.append(f"## {name}\n\n```text\n{text.rstrip()}\n```\n")
    parts += [
        "## Fields of an experiment\n",
        "`--config.FIELD=VALUE` overrides a field. `shift_jax.config` declares them all, also for "
        "use from Python without config files.\n",
    ]
    shared = {field.name for field in fields_of(ExperimentConfig)}
    for title, kind in (
        ("Every task", ExperimentConfig),
        ("Classification", ClassificationConfig),
        ("Faces", FacesConfig),
        ("Style transfer", StyleConfig),
    ):
        rows = [
            {
                "Field": f"`{field.name}`",
                "Default": f"`{field.default!r}`",
                "Expected": field.expected,
                "Meaning": field.meaning,
            }
            for field in fields_of(kind)
            if kind is ExperimentConfig or field.name not in shared
        ]
        parts.append(f"### {title}\n\n{markdown_table(rows)}\n")
    return "\n".join(parts)
