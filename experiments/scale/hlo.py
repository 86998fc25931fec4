"""Data that a compiled program sends between devices, read from its text."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import NamedTuple

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "s64": 8, "f64": 8}
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


class Traffic(NamedTuple):
    """Traffic of one kind of collective, in one run of the program."""

    runs: int
    bytes: int  # the larger of operand and result, on one device


def collectives(text: str) -> dict[str, Traffic]:
    """Traffic by kind.

    Collectives in a loop count once per iteration. TPUs cut a collective into steps that run next
    to other work; the steps share a channel and count once. An all-reduce whose result is sliced in
    the same fusion is a reduce-scatter.
    """
    computations = _computations(text)
    turns = _turns(computations)
    channels: dict[str, tuple[str, int, int]] = {}  # channel -> kind, times, bytes
    for name, lines in computations.items():
        for place, line in enumerate(lines):
            match = re.search(rf"= (.+?) ({'|'.join(KINDS)})(-start)?\((.*?)\)", line)
            if match is None:
                continue
            result, kind, asynchronous, _ = match.groups()
            size = _size(result)
            if asynchronous and kind != "all-reduce":  # it also returns its operands
                size = max(_size(part) for part in re.findall(r"\w+\[[\d,]*\]", result))
            if kind == "reduce-scatter":
                size *= _group(line)
            if name.startswith("all-reduce-scatter"):
                kind = "reduce-scatter"
            channel = re.search(r"channel_id=(\d+)", line)
            key = channel.group(1) if channel else f"{name} {place}"
            times = max(turns[name], channels.get(key, ("", 0, 0))[1])
            channels[key] = (kind, times, size)
    found: dict[str, Traffic] = {}
    for kind, times, size in channels.values():
        count, total = found.get(kind, Traffic(0, 0))
        found[kind] = Traffic(count + times, total + times * size)
    return found


def _computations(text: str) -> dict[str, list[str]]:
    """Lines of each computation, by name; the program's own is "ENTRY"."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$", line):
            lines = found.setdefault("ENTRY" if head.group(1) else head.group(2), [])
        elif line.startswith("}"):
            lines = []
        else:
            lines.append(line)
    return found


def _turns(computations: dict[str, list[str]]) -> dict[str, int]:
    """How often each computation runs in one run of the program."""
    called: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, lines in computations.items():
        for line in lines:
            times = _trip_count(line, computations) if " while(" in line else 1
            for names in re.findall(
                r"(?:calls|body|to_apply|branch_computations)=\{?([^ })]+)", line
            ):
                called[name] += [(one.strip("%, "), times) for one in names.split(",") if one]
    turns: dict[str, int] = defaultdict(int)

    def visit(name: str, times: int) -> None:
        turns[name] += times
        for inner, each in called[name]:
            visit(inner, times * each)

    visit("ENTRY", 1)
    return turns


def _trip_count(line: str, computations: dict[str, list[str]]) -> int:
    """Iterations of a `while` that counts from 0 to a constant, as all `lax.scan` loops do."""
    if known := re.search(r'known_trip_count":\{"n":"(\d+)"', line):
        return int(known.group(1))
    condition = re.search(r"condition=%?([\w.\-]+)", line)
    assert condition is not None, line
    limits = re.findall(
        r"s32\[\]\S* constant\((\d+)\)", "\n".join(computations[condition.group(1)])
    )
    assert len(limits) == 1, f"{condition.group(1)}: not a loop up to one constant"
    return int(limits[0])


def _size(shapes: str) -> int:
    """Bytes of all arrays in a type, such as "(f32[2,3]{1,0}, s32[])"."""
    return sum(
        BYTES.get(kind, 4) * math.prod(int(length) for length in lengths.split(",") if length)
        for kind, lengths in re.findall(r"(\w+)\[([\d,]*)\]", shapes)
    )


def _group(line: str) -> int:
    """Number of devices in one collective."""
    if sizes := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(sizes.group(1))
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
    assert listed is not None, line
    return len(listed.group(1).split(","))
