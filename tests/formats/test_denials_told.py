"""Every reason to deny in every dialect: what a client must know is there, wherever the dialect keeps it."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from extproc.decision import Denial, LimitState, PolicyRef, Reason, Unit
from extproc.formats import FORMATS
from extproc.formats.base import Reply
from tests.formats.test_denials import ID, NOW_S, denial, limit

POLICY = PolicyRef("UsageCap", "team-month")
HOUR = limit(window_s=3600, wait_ms=45_190)
MONTH = limit(
    Unit.COST_USD, limit=500 * 10**9, used=499_980_000_000, requested=125_000_000, window_s=2_592_000
)
AT_ONCE = limit(Unit.CONCURRENT_REQUESTS, limit=2, used=2, requested=1, window_s=0)
# Each reason as the policies deny for it.
DENIALS = (
    denial(401, Reason.CREDENTIAL_MISSING),
    denial(403, Reason.CREDENTIAL_INVALID),
    denial(403, Reason.CREDENTIAL_EXPIRED),
    denial(403, Reason.CREDENTIAL_DISABLED),
    denial(403, Reason.ACCESS_DENIED),
    denial(403, Reason.ACCESS_NOT_GRANTED),
    denial(403, Reason.UNCLASSIFIED),
    denial(413, Reason.BODY_TOO_LARGE),
    denial(400, Reason.BODY_MISSING),
    denial(400, Reason.BODY_MALFORMED),
    denial(415, Reason.ENCODING_UNSUPPORTED),
    denial(400, Reason.HEADER_MISMATCH),
    denial(429, Reason.RATE_LIMITED, limit=HOUR, retry_after_ms=45_190),
    denial(429, Reason.CAP_REACHED, limit=MONTH, retry_after_ms=864_000_000),
    denial(429, Reason.CAP_REACHED, limit=HOUR, retry_after_ms=45_190),
    denial(429, Reason.CONCURRENCY_LIMITED, limit=AT_ONCE, retry_after_ms=1000),
    denial(413, Reason.REQUEST_EXCEEDS_LIMIT),
    denial(413, Reason.REQUEST_EXCEEDS_LIMIT, limit=HOUR),
    denial(403, Reason.POLICY_ERROR),
    denial(503, Reason.STORE_UNAVAILABLE, retry_after_ms=1000),
    denial(503, Reason.AUDIT_UNAVAILABLE, retry_after_ms=1000),
    denial(503, Reason.DEADLINE_EXCEEDED, retry_after_ms=1000),
)
ALLOWED = {Reason.ALLOWED, Reason.MODEL_SUBSTITUTED, Reason.CLAMPED}
VENDORS = [("openai_chat", each) for each in ("azure.ai.openai", "openrouter", "mistral_ai")]
DIALECTS = [*((name, "") for name in FORMATS), *VENDORS]

every_dialect = pytest.mark.parametrize(("name", "vendor"), DIALECTS)


def fields(value: Any) -> Iterator[tuple[str, Any]]:
    """Every field that is no list or object, however deep; Google's camel case as snake case."""
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from fields(inner)
        elif isinstance(inner, list):
            for each in inner:
                yield from fields(each)
        else:
            yield re.sub("[A-Z]", lambda found: "_" + found[0].lower(), name), inner


def told(reply: Reply) -> Mapping[str, set[str]]:
    """What each field says, in lower case: Google shouts its reasons."""
    found: dict[str, set[str]] = {}
    for name, value in fields(json.loads(reply.body)):
        found.setdefault(name, set()).add(str(value).lower())
    return found


def test_every_reason_to_deny_is_in_the_table() -> None:
    assert {each.reason for each in DENIALS} == set(Reason) - ALLOWED


@every_dialect
def test_a_denial_tells_status_reason_decision_and_when_to_come_back(name: str, vendor: str) -> None:
    for what in DENIALS:
        for policy in (POLICY, None):
            told_by = replace(what, policy=policy)
            check(told_by, FORMATS[name].render_denial(told_by, vendor))


def check(what: Denial, reply: Reply) -> None:
    said, headers = told(reply), reply.headers
    wait_s = None if what.retry_after_ms is None else str(-(-what.retry_after_ms // 1000))

    assert reply.status == what.status
    assert headers["content-type"] == "application/json"
    assert headers["x-ai-policy-decision-id"] == ID
    assert f"(decision {ID})" in reply.body.decode()
    assert str(what.reason) in said["reason"]
    assert ID.lower() in said["decision_id"]
    assert said.get("policy", {None}) == {str(what.policy).lower() if what.policy else None}
    assert headers.get("retry-after") == wait_s
    assert said.get("retry_after", {None}) == {wait_s}
    is_final = what.retry_after_ms is None or what.retry_after_ms > 60_000
    assert headers.get("x-should-retry") == ("false" if is_final else None)


@every_dialect
def test_a_denial_by_a_limit_tells_its_numbers(name: str, vendor: str) -> None:
    for what in DENIALS:
        if what.limit is not None:
            check_numbers(what.limit, told(FORMATS[name].render_denial(what, vendor)))


def check_numbers(state: LimitState, said: Mapping[str, set[str]]) -> None:
    per = 1e9 if state.unit is Unit.COST_USD else 1
    for field in ("limit", "used", "requested"):
        (number,) = said[field]
        assert float(number) == getattr(state, field) / per
    assert said["unit"] == {str(state.unit)}
    assert ("reset" in said) == (state is not AT_ONCE), "what is counted at once has no time of reset"
    assert said.get("reset", {"2026-09-21t14:14:12z"}) == {"2026-09-21t14:14:12z"}


@every_dialect
def test_no_numbers_are_made_up_where_no_limit_denied(name: str, vendor: str) -> None:
    said = told(FORMATS[name].render_denial(denial(403, Reason.ACCESS_DENIED), vendor))

    assert not said.keys() & {"limit", "used", "requested", "reset", "unit", "retry_after"}


@every_dialect
def test_an_answer_without_a_decision_names_none(name: str, vendor: str) -> None:
    reply = FORMATS[name].render_denial(denial(503, Reason.POLICY_ERROR, decision_id=""), vendor)

    assert "(decision" not in reply.body.decode()
    assert "decision_id" not in told(reply)
    assert not any(value == "" for value in reply.headers.values())


UNITS = [(Unit.REQUESTS, "requests"), (Unit.TOKENS, "tokens")]


@pytest.mark.parametrize(
    ("unit", "noun"), [*UNITS, (Unit.INPUT_TOKENS, "tokens"), (Unit.OUTPUT_TOKENS, "tokens")]
)
def test_openai_clients_read_any_limit_of_requests_and_tokens(unit: Unit, noun: str) -> None:
    state = limit(unit, window_s=2_592_000, reset_ms=2_591_999_001)
    headers = FORMATS["openai_chat"].limit_headers((state,), NOW_S)

    assert headers == {
        f"x-ratelimit-limit-{noun}": "200000",
        f"x-ratelimit-remaining-{noun}": "29367",
        f"x-ratelimit-reset-{noun}": "719h59m59.001s",
    }


@pytest.mark.parametrize(
    ("unit", "noun"), [*UNITS, (Unit.INPUT_TOKENS, "input-tokens"), (Unit.OUTPUT_TOKENS, "output-tokens")]
)
def test_anthropic_clients_read_input_and_output_apart(unit: Unit, noun: str) -> None:
    state: LimitState = limit(unit, window_s=2_592_000, reset_ms=2_591_999_001)
    headers = FORMATS["anthropic_messages"].limit_headers((state,), NOW_S)

    assert headers == {
        f"anthropic-ratelimit-{noun}-limit": "200000",
        f"anthropic-ratelimit-{noun}-remaining": "29367",
        f"anthropic-ratelimit-{noun}-reset": "2026-10-21T14:13:20Z",
    }
