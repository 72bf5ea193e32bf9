"""Caps through the real Envoy: under concurrency, across restarts, and against the provider's own books."""

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest

from tests.e2e import policies
from tests.e2e.ledgers import TOKEN, Written, change, counter
from tests.e2e.stack import Stack, check_often
from tests.e2e.test_requests import wait_until

RUNS, ASKED, ADMITTED = 10, 200, 50
OUTPUT = 20  # tokens each request declares, and the provider generates
CAPS = f"""
apiVersion: ai-policy/v1
kind: UsageCap
metadata: {{name: fifty-answers}}
spec: {{key: [identity.team], limit: {{requests: {ADMITTED}}}, period: year}}
---
apiVersion: ai-policy/v1
kind: UsageCap
metadata: {{name: team-output}}
spec:
  match: request.model == "gpt-4.1-nano"
  key: [identity.team]
  limit: {{outputTokens: {ADMITTED // 2 * OUTPUT}}}
  rolling: 30d
---
apiVersion: ai-policy/v1
kind: UsageCap
metadata: {{name: team-tokens}}
spec: {{key: [identity.team], limit: {{tokens: 100000000}}, period: month, timezone: Europe/Berlin}}
---
apiVersion: ai-policy/v1
kind: UsageCap
metadata: {{name: team-cost}}
spec: {{key: [identity.team], limit: {{costUsd: 1000}}, period: month}}
---
apiVersion: ai-policy/v1
kind: Defaults
metadata: {{name: defaults}}
spec: {{access: allow, audit: AUDIT}}
---
apiVersion: ai-policy/v1
kind: Identity
metadata: {{name: callers}}
spec: {{anonymous: deny, sources: [{{apiKey: {{header: authorization, scheme: Bearer}}}}]}}
"""


def folder(audit: str) -> dict[str, str]:
    return {"caps.yaml": CAPS.replace("AUDIT", audit), "keys.yaml": policies.FILES["keys.yaml"]}


@pytest.fixture(scope="module", params=["native-1.40.0-best_effort", "stream-1.38.3-required"])
def capped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    usage, version, audit = request.param.split("-")
    place = tmp_path_factory.mktemp(request.param)
    environment = {"EXTPROC_STATE": str(place / "state"), "EXTPROC_ADMIN_TOKEN": TOKEN}
    with Stack(
        place,
        envoy=version,
        usage=usage,
        policies=folder(audit),
        environment=environment,
        edit=check_often,
    ) as stack:
        yield stack


def written(stack: Stack) -> Written:
    return Written(stack.folder / "state" / "ledger.sqlite")


async def ask(
    client: httpx.AsyncClient, number: int, *, model: str = "gpt-4o-mini", fault: str = "slow=5"
) -> int:
    """One streamed request of a team, read to its end."""
    body = {
        "model": model,
        "stream": True,
        "max_tokens": OUTPUT,
        "messages": [{"role": "user", "content": "Count."}],
    }
    headers = {
        "authorization": f"Bearer {policies.key(number)}",
        "x-demo-output-tokens": str(OUTPUT),
        "x-demo-fault": fault,
    }
    async with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
        await answer.aread()
    return answer.status_code


async def ask_at_once(stack: Stack, count: int, number: int, **how: Any) -> Counter[int]:
    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(base_url=stack.gateway_url, limits=limits, timeout=60) as client:
        return Counter(await asyncio.gather(*(ask(client, number, **how) for _ in range(count))))


async def test_of_200_streams_at_once_a_cap_of_50_admits_50_every_time(capped: Stack) -> None:
    capped.clear_books()

    # The decision is the same beside any Envoy; one of them shows that it is the same every time.
    runs = RUNS if capped.usage == "native" else 2

    answered = [await ask_at_once(capped, ASKED, number) for number in range(runs)]

    assert answered == [Counter({429: ASKED - ADMITTED, 200: ADMITTED})] * runs
    ledger, books = written(capped), capped.books()["totals"]
    wait_until(lambda: ledger.open_decisions() == 0, "everything is settled")
    wait_until(lambda: ledger.verdicts().total() == runs * ASKED, "everything is on record")
    # The ledger, the counters and the provider's own books are the same numbers.
    assert ledger.verdicts() == {"allow": runs * ADMITTED, "deny": runs * (ASKED - ADMITTED)}
    assert len(ledger.usages()) == runs * ADMITTED == books["requests"]
    used = [counter(capped, "UsageCap/team-tokens", policies.team(number))["used"] for number in range(runs)]
    assert sum(used) == ledger.charged("UsageCap/team-tokens|")
    assert sum(used) == books["input_tokens"] + books["output_tokens"]
    spent = [
        float(counter(capped, "UsageCap/team-cost", policies.team(n))["used"]) * 1e9 for n in range(runs)
    ]
    assert round(sum(spent)) == ledger.charged("UsageCap/team-cost|") > 0


async def test_what_is_reserved_keeps_others_out_until_it_comes_back(capped: Stack) -> None:
    """Every answer waits until all are decided, so that what each declared is set aside meanwhile."""
    number = RUNS
    answered = await ask_at_once(capped, ASKED // 2, number, model="gpt-4.1-nano", fault="hang=4")

    assert answered == {200: ADMITTED // 2, 429: ASKED // 2 - ADMITTED // 2}
    used = counter(capped, "UsageCap/team-output", policies.team(number))["used"]
    assert used == ADMITTED // 2 * OUTPUT == written(capped).charged("UsageCap/team-output|")


async def test_a_reset_and_an_override_let_more_in_at_once(capped: Stack) -> None:
    number = RUNS + 1
    assert (await ask_at_once(capped, ADMITTED + 5, number))[200] == ADMITTED

    wanted = {"policy": "UsageCap/fifty-answers", "key": [policies.team(number)]}
    change(capped, "override", **wanted, extra=2, until="2100-01-01T00:00:00Z")
    assert (await ask_at_once(capped, 5, number))[200] == 2
    assert change(capped, "reset", **wanted)["used"] == 0
    assert (await ask_at_once(capped, 5, number))[200] == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_what_was_used_stays_used_after_a_restart(capped: Stack, number: signal.Signals) -> None:
    caller = RUNS + 2 + (number == signal.SIGKILL)
    half = ADMITTED // 2
    assert (await ask_at_once(capped, half, caller))[200] == half
    ledger = written(capped)
    wait_until(lambda: ledger.open_decisions() == 0, "everything is settled")
    before = {
        name: counter(capped, f"UsageCap/{name}", policies.team(caller))["used"]
        for name in ("fifty-answers", "team-tokens", "team-cost")
    }

    capped.kill_sidecar(number)
    capped.start_sidecar()

    after = {name: counter(capped, f"UsageCap/{name}", policies.team(caller))["used"] for name in before}
    assert after == before
    assert (await ask_at_once(capped, ADMITTED, caller))[200] == ADMITTED - half


async def test_what_was_open_when_the_sidecar_died_is_charged_as_reserved(capped: Stack) -> None:
    caller, team = RUNS + 4, policies.team(RUNS + 4)
    expired_before = len([usage for usage in written(capped).usages() if usage.basis == "expired"])
    asking = asyncio.create_task(ask_at_once(capped, 3, caller, fault="hang=20"))
    while counter(capped, "UsageCap/fifty-answers", team)["used"] < 3:  # noqa: ASYNC110  another process's
        await asyncio.sleep(0.05)
    reserved = counter(capped, "UsageCap/team-tokens", team)["used"]
    ledger = written(capped)
    wait_until(lambda: ledger.open_decisions() == 3, "all three are on record")

    capped.kill_sidecar()
    capped.start_sidecar()
    asking.cancel()

    wait_until(lambda: ledger.open_decisions() == 0, "all three expired")
    expired = [usage for usage in ledger.usages() if usage.basis == "expired"][expired_before:]
    assert [usage.provisional for usage in expired] == [True] * 3
    assert counter(capped, "UsageCap/team-tokens", team)["used"] == reserved
    assert counter(capped, "UsageCap/fifty-answers", team)["used"] == 3
