"""Damaged files and texts are read, or refused in one sentence: nothing else is raised.

`make fuzz` runs the long version (SHIFT_JAX_FUZZ=10000, the number of cases), which also measures
the processor time and the memory of each case. A case is known by its target and number.
"""

import collections
import os
import time
from pathlib import Path
from random import Random

from tests.fuzz.targets import targets

CASES = int(os.environ.get("SHIFT_JAX_FUZZ", "300"))
IS_LONG = "SHIFT_JAX_FUZZ" in os.environ
SECONDS, MEGABYTES = 2, 1000


def memory(name):
    """Megabytes of this process: VmRSS now, or VmHWM at most since `forget_peak`; Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 1000


def forget_peak():
    Path("/proc/self/clear_refs").write_text("5")


def test_damage_is_read_or_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kinds = list(targets(tmp_path / "fuzz"))
    share = CASES / sum(kind.share for kind in kinds)
    failures, slowest, largest = [], collections.Counter(), collections.Counter()
    for kind in kinds:
        for number in range(max(1, round(share * kind.share))):
            case = f"{kind.name} {number}"
            if IS_LONG:
                forget_peak()
                before, start = memory("VmRSS"), time.process_time()
            try:
                kind.run(Random(case))
            except Exception as error:
                failures.append(f"{case}: {type(error).__name__}: {str(error)[:200]}")
            if IS_LONG:
                slowest[case] = time.process_time() - start
                largest[case] = memory("VmHWM") - before
    if IS_LONG:
        print(f"\n{len(slowest)} cases, {len(failures)} failed; processor time, the longest first:")
        print("\n".join(f"  {case}: {seconds:.2f} s" for case, seconds in slowest.most_common(8)))
        print("memory beyond that before the case, the most first:")
        print("\n".join(f"  {case}: {size:.0f} MB" for case, size in largest.most_common(8)))
        failures += [f"{case}: {s:.2f} s" for case, s in slowest.items() if s > SECONDS]
        failures += [f"{case}: {size:.0f} MB" for case, size in largest.items() if size > MEGABYTES]
    assert not failures, f"{len(failures)} failed:\n" + "\n".join(failures[:40])
