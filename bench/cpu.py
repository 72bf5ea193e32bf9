"""CPU time of process groups and of the whole machine, from /proc. Linux only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")

# Places in /proc/PID/stat after the name, which may itself hold spaces and parentheses; proc(5).
_GROUP = 2
_TIMES = slice(11, 15)  # utime, stime, and those of ended children: cutime, cstime


def used_s(groups: Mapping[str, int]) -> dict[str, float]:
    """CPU seconds so far, user and system, of every thread and process in these process groups.

    The kernel's resolution is a tick, usually 10 ms.
    """
    ticks = dict.fromkeys(groups.values(), 0)
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (stat := _stat(Path(entry.path))):
            group = int(stat[_GROUP])
            if group in ticks:
                ticks[group] += sum(map(int, stat[_TIMES]))
    return {name: ticks[group] / TICKS_A_SECOND for name, group in groups.items()}


def machine_s() -> float:
    """CPU seconds so far of everything that runs on this machine."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts = map(int, words[1:8])
    return (user + nice + system + interrupts + soft_interrupts) / TICKS_A_SECOND


def _stat(process: Path) -> list[str]:
    try:
        text = (process / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []  # it ended meanwhile
    return text.rpartition(")")[2].split()
