"""The device and the code that computed a result."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

import jax

import shift_jax


def device_name() -> str:
    """Returns the first device, such as "1 × NVIDIA H100 80GB HBM3", or a CPU's model and cores."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return f"1 × {device.device_kind}"
    # Those that this process may use: in a container not all.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_cpu_model()}, {cores} core{'' if cores == 1 else 's'}"


def _cpu_model() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def commit() -> str:
    """Returns git's short hash of this package's code, with a "+" for uncommitted changes.

    Outside of a git repository of its own, the package returns its version.
    """
    folder = Path(shift_jax.__file__).parent
    try:
        # An installed package may lie in a repository that does not track it.
        _git(folder, "ls-files", "--error-unmatch", "version.py")
        changed = _git(folder, "status", "--porcelain", "--", ".")
        return _git(folder, "rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return shift_jax.__version__


def _git(folder: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["git", "-C", folder, *arguments], capture_output=True, text=True, check=True
    )
    return result.stdout.strip()
