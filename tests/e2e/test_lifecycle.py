"""What happens around requests: policy edits, a sidecar that dies and returns, Envoy without it."""

import signal
import threading
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import openai
import pytest

from tests.e2e import policies
from tests.e2e.callers import Caller, call, settlements
from tests.e2e.stack import Stack, check_often
from tests.e2e.test_requests import HELLO, OPENAI, wait_until

NO_MINI = """
apiVersion: ai-policy/v1
kind: AccessRule
metadata: {name: no-mini}
spec: {effect: deny, match: 'request.model == "gpt-4o-mini"'}
"""


@pytest.fixture(scope="module", params=["native-1.40.0", "stream-1.38.3"])
def own_stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that tests may break; `breaker` mends it."""
    usage, _, version = request.param.partition("-")
    place = tmp_path_factory.mktemp(request.param)
    with Stack(place, envoy=version, usage=usage, policies=policies.FILES, edit=check_often) as stack:
        yield stack


@pytest.fixture
def breaker(own_stack: Stack) -> Iterator[Caller]:
    good = revision(own_stack)
    yield call(own_stack)
    if not own_stack.has_sidecar:
        own_stack.start_sidecar()
    (own_stack.policies / "zz.yaml").unlink(missing_ok=True)
    wait_until(lambda: revision(own_stack) == good, "the policies of the start")


def ask(client: Any) -> Any:
    return client.chat.completions.create(model=OPENAI, messages=HELLO)


def is_denied(client: Any) -> bool:
    try:
        ask(client)
    except openai.PermissionDeniedError:
        return True
    return False


def revision(stack: Stack) -> str:
    return str(httpx.get(f"{stack.admin_url}/readyz").json()["revision"])


def test_an_edit_takes_effect_and_no_counter_is_lost(breaker: Caller) -> None:
    stack = breaker.stack
    with breaker.openai() as client:
        usage = ask(client).usage
        assert usage is not None
        wait_until(lambda: breaker.tokens_used() == usage.total_tokens, "settled")
        before = revision(stack)
        stack.write_policy("zz.yaml", NO_MINI)
        wait_until(lambda: is_denied(client), "the new rule in force")
        assert revision(stack) != before
        stack.write_policy("zz.yaml", "")
        wait_until(lambda: not is_denied(client), "the rule gone again")

    # The one request that found the rule gone was charged too; nothing was forgotten.
    assert breaker.tokens_used() >= usage.total_tokens
    assert revision(stack) != before


def test_a_broken_edit_keeps_the_last_good_revision_and_is_loud(breaker: Caller) -> None:
    stack = breaker.stack
    good = revision(stack)
    stack.write_policy("zz.yaml", "apiVersion: ai-policy/v1\nkind: AccessRule\nmetadata: {na")

    def ready() -> dict[str, object]:
        answer: dict[str, object] = httpx.get(f"{stack.admin_url}/readyz").json()
        return answer

    wait_until(lambda: ready()["last_reload_ok"] is False, "a failed reload")
    with breaker.openai() as client:
        assert ask(client).choices
    assert ready()["revision"] == good
    assert "zz.yaml:3:" in str(ready()["problems"])
    assert "ai_policy_reload_failures_total 1.0" in httpx.get(f"{stack.admin_url}/metrics").text


def test_a_sidecar_killed_mid_stream_cuts_the_answer_and_new_requests_fail_closed(breaker: Caller) -> None:
    stack = breaker.stack
    seen: list[str] = []
    first = threading.Event()
    ending: list[BaseException | None] = []

    def read() -> None:
        with breaker.openai(x_demo_output_tokens="200", x_demo_interval_ms="50") as client:
            try:
                # Its own usage chunk keeps the native stack's answer on the native path.
                for chunk in client.chat.completions.create(
                    model=OPENAI,
                    messages=HELLO,
                    stream=True,
                    stream_options={"include_usage": True},
                ):
                    seen.append(chunk.model)
                    first.set()
            except (openai.APIError, httpx.HTTPError) as error:
                ending.append(error)
            else:
                ending.append(None)

    reader = threading.Thread(target=read)
    reader.start()
    assert first.wait(20)
    stack.kill_sidecar(signal.SIGKILL)
    reader.join(30)

    assert ending, "the stream never ended"
    assert ending[0] is not None, "the client took a cut answer for a whole one"
    assert len(seen) < 200

    stack.await_envoys_view(healthy=False)
    reached = len(stack.books()["entries"])
    with breaker.http() as client:
        answer = client.post("/v1/chat/completions", json={"model": OPENAI, "messages": HELLO})
    assert answer.status_code == 503
    assert len(stack.books()["entries"]) == reached, "a request passed without a decision"

    stack.start_sidecar()
    stack.await_envoys_view(healthy=True)
    with breaker.openai() as again:
        assert ask(again).choices


def test_a_sidecar_told_to_stop_lets_the_open_answer_end(breaker: Caller) -> None:
    stack = breaker.stack
    first = threading.Event()
    chunks: list[object] = []
    errors: list[BaseException] = []

    def read() -> None:
        with breaker.openai(x_demo_output_tokens="40", x_demo_interval_ms="50") as client:
            try:
                for chunk in client.chat.completions.create(model=OPENAI, messages=HELLO, stream=True):
                    chunks.append(chunk)
                    first.set()
            except (openai.APIError, httpx.HTTPError) as error:
                errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert first.wait(20)
    stack.kill_sidecar(signal.SIGTERM)
    reader.join(30)

    assert errors == []
    assert len(chunks) >= 40


def test_routes_that_are_not_ai_open_no_stream(breaker: Caller) -> None:
    stack = breaker.stack

    def started() -> int:
        return sum(
            n for key, n in stack.envoy_stats("http.").items() if key.endswith("ai_policy.streams_started")
        )

    before = started()
    with breaker.http() as client:
        answer = client.get("/not-ai")

    assert answer.status_code == 404
    assert started() == before


def test_many_callers_at_once_are_all_answered_and_settled(breaker: Caller) -> None:
    stack = breaker.stack
    before = sum(settlements(stack).values())
    failures: list[BaseException] = []

    def run() -> None:
        with breaker.openai(x_demo_output_tokens="20", x_demo_interval_ms="5") as client:
            try:
                for _ in range(5):
                    list(client.chat.completions.create(model=OPENAI, messages=HELLO, stream=True))
            except BaseException as error:  # noqa: BLE001  a thread's failure is the test's
                failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert failures == []
    wait_until(lambda: sum(settlements(stack).values()) == before + 50, "every one settled")
    booked = [e for e in stack.books()["entries"] if e["output_tokens"] == 20]
    spent = sum(e["input_tokens"] + e["output_tokens"] for e in booked)
    wait_until(lambda: breaker.tokens_used() == spent, "the budget equals the provider's books")
