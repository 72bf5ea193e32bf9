"""What the process says of itself: the policies in force, how their last load went, how busy it is."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from pathlib import Path

from extproc import gauges
from extproc.reload import PolicyFolder
from extproc.telemetry import Metrics
from tests.test_metrics import value

POLICIES = Path(__file__).parent.parent / "policies"


async def test_the_policies_in_force_and_how_their_last_load_went_are_told(tmp_path: Path) -> None:
    path = tmp_path / "policies"
    shutil.copytree(POLICIES, path)
    folder = PolicyFolder(path)
    metrics = Metrics(version="1")
    metrics.watch(*gauges.of_policies(folder))
    revision = folder.current.revision
    loaded_at_s = value(metrics, "ai_policy_policy_loaded_time_seconds")
    assert value(metrics, "ai_policy_policy_last_load_ok") == 1
    assert value(metrics, "ai_policy_policy_objects") == len(folder.current.objects)
    assert value(metrics, "ai_policy_policy_revision_info", revision=revision) == 1
    assert loaded_at_s is not None
    assert 0 <= time.time() - loaded_at_s < 60

    (path / "broken.yaml").write_text("kind: [")
    await folder.look()
    assert value(metrics, "ai_policy_policy_last_load_ok") == 0
    assert value(metrics, "ai_policy_policy_loaded_time_seconds") == loaded_at_s
    assert value(metrics, "ai_policy_policy_revision_info", revision=revision) == 1

    (path / "broken.yaml").write_text("# mended\n")
    await folder.look()
    later_s = value(metrics, "ai_policy_policy_loaded_time_seconds")
    metrics.close()
    assert later_s is not None
    assert later_s > loaded_at_s


async def test_an_event_loop_that_was_held_up_is_late() -> None:
    metrics = Metrics(version="1")
    watching = asyncio.create_task(gauges.watch_event_loop(metrics))
    await asyncio.sleep(0)
    time.sleep(0.4)  # noqa: ASYNC251  that is what holds it up
    await asyncio.sleep(0.01)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    late_s = value(metrics, "ai_policy_eventloop_lag_seconds_sum")
    metrics.close()

    assert late_s is not None
    assert late_s > 0.1
