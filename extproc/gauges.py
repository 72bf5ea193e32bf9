"""What the process says of itself: the policies in force, how their last load went, how busy it is.

Floor 3. Read when somebody collects; only the event loop is asked all the time, four times a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from extproc.reload import PolicyFolder
from extproc.telemetry import Figure, Metrics

_EVERY_S = 0.25


def of_policies(folder: PolicyFolder) -> Iterator[Figure]:
    """The state of the folder; alerts are on its age and on whether it loads."""
    yield Figure(
        "ai_policy.policy.last_load_ok",
        "{folder}",
        "1 while the folder loads as it is; at 0 an older revision is in force.",
        lambda: int(folder.status.ok),
    )
    yield Figure(
        "ai_policy.policy.loaded_time",
        "s",
        "When the revision in force was loaded, Unix time.",
        lambda: folder.loaded_at_ns / 1e9,
    )
    yield Figure(
        "ai_policy.policy.objects",
        "{object}",
        "Policy objects in force.",
        lambda: len(folder.current.objects),
    )
    yield Figure(
        "ai_policy.policy.revision_info",
        "",
        "The revision in force.",
        lambda: 1,
        labels=lambda: {"revision": folder.current.revision},
    )


async def watch_event_loop(metrics: Metrics) -> None:
    """Measure how late the event loop is, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + _EVERY_S
        await asyncio.sleep(_EVERY_S)
        metrics.eventloop_lag.record(max(0.0, loop.time() - due_s))
