"""The collectives of a compiled program, and what each chip sends for them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

KINDS = ("all-reduce", "reduce-scatter", "all-gather", "all-to-all", "collective-permute")

_INSTRUCTION = re.compile(r"\s*(?:ROOT )?%([\w.-]+) =(.*)")
_OPCODE = re.compile(rf"({'|'.join(KINDS)})(?:-start)?\(")


@dataclass(frozen=True)
class Collective:
    """A collective of a compiled program.

    Attributes:
      kind: one of `KINDS`.
      payload_bytes: of the whole array that a group sums, scatters or gathers, in one execution.
      group: chips that take part together.
      times: executions in one run of the program.
    """

    kind: str
    payload_bytes: int
    group: int
    times: int

    @property
    def passes(self) -> int:
        """How often the data goes around: a sum is scattered and gathered."""
        return 2 if self.kind == "all-reduce" else 1

    @property
    def link_bytes(self) -> float:
        """The bytes that one chip sends in one execution around a ring.

        A sum over n chips sends 2 (n - 1) / n of the array (Patarasuk and Yuan 2009), a scatter or
        a gather half of that; a permutation sends the array once.
        """
        if self.kind == "collective-permute":
            return self.payload_bytes
        return self.passes * self.payload_bytes * (self.group - 1) / self.group


def collectives(text: str, chips: int) -> list[Collective]:
    """Returns the collectives of a compiled module, those in loops once for each execution.

    If each chip keeps only its part of a sum, in a fusion of the TPU's compiler, the sum counts as
    the reduce-scatter that the chips execute.

    Args:
      text: of the module, from `compiled.as_text()`.
      chips: that the program was compiled for; a collective without groups involves all of them.

    Raises:
      ValueError: a loop does not say how often it runs.
    """
    computations, entry = _computations(text)
    times: dict[str, int] = defaultdict(int)
    _visit(entry, 1, computations, times)
    found = []
    for name, lines in computations.items():
        for line in lines:
            opcode = _OPCODE.search(line)
            if opcode is None or not times[name] or " = " not in line[: opcode.start()]:
                continue
            kind = opcode[1]
            if kind == "all-reduce" and "all-reduce-scatter" in name:
                kind = "reduce-scatter"
            group = _group(line, chips)
            # Only this side of a scatter or a gather is the whole array.
            result = line[: opcode.start()].partition(" = ")[2]
            size = _nbytes(result)
            if opcode[0].endswith("-start(") and kind in ("all-gather", "collective-permute"):
                size = _of_started(result, kind)
            if kind == "reduce-scatter" and opcode[1] == kind:
                size *= group
            found.append(Collective(kind, size, group, times[name]))
    return found


def trip_counts(text: str) -> list[int]:
    """Returns how often each loop of a compiled module runs each time it is reached."""
    computations, _ = _computations(text)
    lines = (line for lines in computations.values() for line in lines)
    return [_trips(line, computations) for line in lines if " while(" in line]


def totals(found: Iterable[Collective]) -> dict[str, tuple[int, int]]:
    """Returns the executions and payload bytes of one run, for each kind that occurs."""
    sums: dict[str, tuple[int, int]] = {}
    for one in found:
        count, size = sums.get(one.kind, (0, 0))
        sums[one.kind] = (count + one.times, size + one.times * one.payload_bytes)
    return sums


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Returns the instructions of each computation, and the name of the entry computation."""
    computations: dict[str, list[str]] = {}
    entry, lines = "", None
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.-]+) \(.*\{$", line)
        if head:
            lines = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            lines = None
        elif lines is not None:
            lines.append(line)
    return computations, entry


def _visit(name: str, factor: int, computations: dict, times: dict) -> None:
    times[name] += factor
    for line in computations[name]:
        trips = _trips(line, computations) if " while(" in line else 1
        for callee in re.findall(r"(?:calls|body|called_computations=\{)=?%?([\w.-]+)", line):
            if callee in computations:
                _visit(callee, factor * trips, computations, times)


def _trips(line: str, computations: dict) -> int:
    """Returns how often a loop runs: by its own word, or by a counter from 0 to a constant."""
    known = re.search(r'known_trip_count"?:\s*\{"?n"?:"?(\d+)', line)
    if known:
        return int(known[1])
    condition, body = (
        {found[1]: found[2] for found in map(_INSTRUCTION.match, computations[name]) if found}
        for name in re.search(r"condition=%?([\w.-]+), body=%?([\w.-]+)", line).groups()
    )
    try:
        compared = next(text for text in condition.values() if "direction=LT" in text)
        counter, limit = _operands(compared)
        position = int(re.search(r"index=(\d+)", condition[counter])[1])
        results = next(text for text in reversed(body.values()) if " tuple(" in text)
        step = _operands(body[_operands(results)[position]])[1]
        limit, step = (
            int(re.search(r"constant\((\d+)\)", where[name])[1])
            for where, name in ((condition, limit), (body, step))
        )
    except (StopIteration, ValueError, KeyError, TypeError):
        raise ValueError(f"a loop without a known trip count: {line.strip()[:100]}") from None
    return -(-limit // step)


def _operands(text: str) -> list[str]:
    """Returns the names in the parentheses after the opcode."""
    return re.findall(r"%([\w.-]+)", re.search(r" [\w-]+\((%.*?)\)", text)[1])


def _group(line: str, chips: int) -> int:
    """Returns the size of a group: {{0,1},{2,3}}, [2,2]<=[4], mesh['a'=2,'b'=2] {'a'} or {}."""
    groups = line.partition("replica_groups=")[2]
    if groups.startswith("mesh["):
        axes, _, names = groups.partition("}")[0].partition("] {")
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", axes)}
        if ":" in names:
            raise ValueError(f"a part of an axis, which this cannot read: {groups[:80]}")
        return prod(sizes[name] for name in re.findall(r"'(\w+)'", names))
    iota = re.match(r"\[\d+,(\d+)\]", groups)
    if iota:
        return int(iota[1])
    listed = re.match(r"\{\{([\d,]+)\}", groups)
    return len(listed[1].split(",")) if listed else chips


def _shapes(text: str) -> list[int]:
    return [
        prod(map(int, filter(None, dims.split(",")))) * _bits(dtype) // 8
        for dtype, dims in re.findall(r"\b(pred|[a-z]+\d+)\[([\d,]*)\]", text)
    ]


def _nbytes(text: str) -> int:
    return sum(_shapes(text))


def _of_started(result: str, kind: str) -> int:
    """Returns the results of ((operands), (results), ...); a gather's are the larger ones."""
    sizes = _shapes(result)
    if kind == "collective-permute":
        return sizes[1]
    return sum(sizes[len(sizes) // 2 :])


def _bits(dtype: str) -> int:
    return 8 if dtype == "pred" else int(re.search(r"\d+$", dtype)[0])
