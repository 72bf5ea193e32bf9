"""Two sidecars on one Redis and one Postgres: they count as one, and what is lost is put back."""

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2 as httpx
import pytest

from tests.e2e import policies
from tests.e2e.ledgers import TOKEN, Written, counter
from tests.e2e.stack import Stack
from tests.e2e.test_requests import wait_until
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

ADMITTED = 20
FOLDER = {
    "caps.yaml": f"""
apiVersion: ai-policy/v1
kind: UsageCap
metadata: {{name: answers}}
spec:
  match: request.model == "gpt-4o-mini"
  key: [identity.team]
  limit: {{requests: {ADMITTED}}}
  period: year
---
apiVersion: ai-policy/v1
kind: ConcurrencyLimit
metadata: {{name: at-once}}
spec: {{key: [identity.team], match: 'request.model == "gpt-4.1"', max: 3}}
---
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {{name: rate}}
spec: {{key: [identity.team], limit: {{tokens: 100000000, per: 1m}}}}
---
apiVersion: ai-policy/v1
kind: Defaults
metadata: {{name: defaults}}
spec: {{access: allow}}
---
apiVersion: ai-policy/v1
kind: Identity
metadata: {{name: callers}}
spec: {{anonymous: deny, sources: [{{apiKey: {{header: authorization, scheme: Bearer}}}}]}}
""",
    "keys.yaml": policies.FILES["keys.yaml"],
}
CAP = "UsageCap/answers"


@dataclass
class Pair:
    first: Stack
    second: Stack
    redis: RedisServer
    ledger: Written

    def used(self, number: int) -> int:
        return int(counter(self.first, CAP, policies.team(number))["used"])

    def settled(self, count: int) -> bool:
        return self.ledger.open_decisions() == 0 and len(self.ledger.usages()) >= count


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    place = tmp_path_factory.mktemp("pair")
    (place / "first").mkdir()
    (place / "second").mkdir()
    with RedisServer() as redis, PostgresServer() as postgres, postgres.database() as ledger:
        environment = {
            "EXTPROC_STORE": redis.url,
            "EXTPROC_STORE_TIMEOUT_MS": "500",  # a busy machine
            "EXTPROC_LEDGER": ledger,
            "EXTPROC_ADMIN_TOKEN": TOKEN,
        }
        with (
            Stack(place / "first", usage="native", policies=FOLDER, environment=environment) as first,
            Stack(
                place / "second",
                usage="stream",
                policies=FOLDER,
                environment=environment,
                provider_port=first.demo_port,
            ) as second,
        ):
            yield Pair(first, second, redis, Written(ledger))


async def ask(client: httpx.AsyncClient, number: int, model: str, fault: str) -> int:
    body = {"model": model, "max_tokens": 5, "messages": [{"role": "user", "content": "Count."}]}
    headers = {"authorization": f"Bearer {policies.key(number)}", "x-demo-fault": fault}
    answer = await client.post("/v1/chat/completions", json=body, headers=headers)
    return answer.status_code


async def ask_at_once(
    stack: Stack, count: int, number: int, *, model: str = "gpt-4o-mini", fault: str = ""
) -> Counter[int]:
    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(base_url=stack.gateway_url, limits=limits, timeout=60) as client:
        asked = (ask(client, number, model, fault) for _ in range(count))
        return Counter(await asyncio.gather(*asked))


async def test_two_sidecars_on_one_redis_count_as_one(pair: Pair) -> None:
    asked = (ask_at_once(stack, 60, 0) for stack in (pair.first, pair.second))

    one, other = await asyncio.gather(*asked)

    assert one + other == {200: ADMITTED, 429: 120 - ADMITTED}
    assert pair.used(0) == ADMITTED
    wait_until(lambda: pair.settled(ADMITTED), "everything is settled")
    assert pair.ledger.charged(f"{CAP}|") == ADMITTED


async def test_what_a_paused_sidecar_reserved_is_taken_and_settled_once_it_goes_on(pair: Pair) -> None:
    waiting = asyncio.create_task(ask_at_once(pair.second, 5, 1, fault="hang=2"))
    while pair.used(1) < 5:  # noqa: ASYNC110  another process's
        await asyncio.sleep(0.05)

    pair.second.signal_sidecar(signal.SIGSTOP)
    try:
        answered = await ask_at_once(pair.first, ADMITTED, 1)
        assert answered == {200: ADMITTED - 5, 429: 5}
        await asyncio.sleep(2)
    finally:
        pair.second.signal_sidecar(signal.SIGCONT)

    assert await waiting == {200: 5}
    wait_until(lambda: pair.ledger.open_decisions() == 0, "everything is settled")
    assert pair.used(1) == ADMITTED
    team = f'"{policies.team(1)}"'
    charged = [
        a.amount for u in pair.ledger.usages() for a in u.amounts if CAP in a.counter and team in a.counter
    ]
    assert charged == [1] * ADMITTED


async def test_leases_are_held_by_both_and_given_back(pair: Pair) -> None:
    asked = (
        ask_at_once(stack, 10, 2, model="gpt-4.1", fault="hang=2") for stack in (pair.first, pair.second)
    )

    one, other = await asyncio.gather(*asked)

    assert one + other == {200: 3, 429: 17}
    wait_until(
        lambda: counter(pair.first, "ConcurrencyLimit/at-once", policies.team(2))["used"] == 0, "given back"
    )
    assert await ask_at_once(pair.second, 3, 2, model="gpt-4.1") == {200: 3}


@pytest.mark.parametrize("loss", ["flushall", "kill"])
async def test_lost_counters_are_noticed_and_put_back(pair: Pair, loss: str) -> None:
    number = 3 + (loss == "kill")
    half = ADMITTED // 2
    assert await ask_at_once(pair.first, half, number) == {200: half}
    wait_until(lambda: pair.ledger.open_decisions() == 0, "everything is settled")
    wait_until(lambda: pair.ledger.counters(f"{CAP}|", policies.team(number)) == half, "written down")

    if loss == "flushall":
        with pair.redis.client() as client:
            client.flushall()
    else:
        pair.redis.kill()
        # Caps deny what they cannot count, rate limits let pass.
        assert await ask_at_once(pair.first, 2, number) == {503: 2}
        assert await ask_at_once(pair.first, 2, number, model="gpt-4o") == {200: 2}
        notices = httpx.get(f"{pair.first.admin_url}/readyz", timeout=30).json()["notices"]
        assert any("counter store does not answer" in notice for notice in notices)
        pair.redis.start()

    # What was used stays used, whoever asks.
    wait_until(lambda: _is_answering(pair, number), "the counters are back")
    one, other = await asyncio.gather(
        *(ask_at_once(stack, ADMITTED, number) for stack in (pair.first, pair.second))
    )
    assert one + other == {200: ADMITTED - half, 429: ADMITTED + half}


def _is_answering(pair: Pair, number: int) -> bool:
    """Whether both sidecars read the counter, and it is what it was."""
    params = {"policy": CAP, "key": policies.team(number)}
    answers = [
        httpx.get(f"{stack.admin_url}/counters", params=params, timeout=30)
        for stack in (pair.first, pair.second)
    ]
    return all(answer.status_code == 200 and answer.json()["used"] for answer in answers)
