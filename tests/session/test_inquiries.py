"""Callers who ask the gateway about themselves: who may, what is asked, and what no policy has to say."""

from pathlib import Path
from typing import Any

import pytest

from extproc.formats.base import Reply
from extproc.session.actions import Ask, RespondImmediately
from extproc.session.events import DeadlinePassed, ResponseHeaders, StreamClosed, Told
from extproc.session.transitions import State
from tests.session.playbook import KEY, KEY_SHA256, Playbook, Said, chat_head, load

CALLERS = f"""
apiVersion: ai-policy/v1
kind: Identity
metadata: {{name: callers}}
spec: {{anonymous: ANONYMOUS, sources: [{{apiKey: {{header: authorization, scheme: Bearer}}}}]}}
---
apiVersion: ai-policy/v1
kind: ApiKey
metadata: {{name: ada}}
spec: {{sha256: {KEY_SHA256}, user: ada, team: core}}
---
apiVersion: ai-policy/v1
kind: AccessRule
metadata: {{name: nothing}}
spec: {{effect: deny, match: 'true'}}
---
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {{name: one}}
spec: {{key: [identity.user], limit: {{requests: 1, per: 1h}}}}
"""


def book(folder: Path, anonymous: str = "deny") -> Playbook:
    return Playbook(load(folder, CALLERS.replace("ANONYMOUS", anonymous)), holds=(Ask,))


def asks(playbook: Playbook, path: str, *, key: str = KEY, **changes: Any) -> Said:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    head: dict[str, Any] = {"method": "GET", "path": path, "headers": headers, "has_body": False}
    return playbook.headers(chat_head(**(head | changes)))


def refused(said: Said) -> int:
    (reply,) = said
    assert isinstance(reply, RespondImmediately)
    return reply.status


def test_a_known_caller_is_told_what_the_ledger_says_and_no_limit_counts_it(tmp_path: Path) -> None:
    playbook = book(tmp_path)

    assert asks(playbook, "/ai-policy/decisions/some-id") == []
    (ask,) = playbook.held
    assert isinstance(ask, Ask)
    assert (ask.inquiry.decision_id, ask.caller.id, ask.caller.team) == ("some-id", "ada", "core")
    (reply,) = playbook.play(Told(at_ns=playbook.now_ns, reply=Reply(status=200, body=b"{}")))

    assert isinstance(reply, RespondImmediately)
    assert (reply.status, reply.body, reply.headers["content-type"]) == (200, b"{}", "application/json")
    assert playbook.session.state is State.DENIED
    assert playbook.session.is_over
    assert playbook.reports == []
    assert playbook.session.decision is None


def test_the_question_about_usage_has_its_parameters(tmp_path: Path) -> None:
    playbook = book(tmp_path)

    asks(playbook, "/ai-policy/usage?since=7d&by=model%2Cday")

    (ask,) = playbook.held
    assert isinstance(ask, Ask)
    assert dict(ask.inquiry.parameters) == {"since": "7d", "by": "model,day"}


@pytest.mark.parametrize("anonymous", ["deny", "allow"])
@pytest.mark.parametrize(("key", "status"), [("", 401), ("sk-wrong", 403)])
def test_who_is_not_known_is_told_nothing(tmp_path: Path, anonymous: str, key: str, status: int) -> None:
    playbook = book(tmp_path, anonymous)

    assert refused(asks(playbook, "/ai-policy/usage", key=key)) == status
    assert playbook.held == []
    assert playbook.decision.enforced_effect == "deny"


def test_without_an_identity_policy_nobody_is_known(tmp_path: Path) -> None:
    playbook = Playbook(load(tmp_path), holds=(Ask,))

    assert refused(asks(playbook, "/ai-policy/usage")) == 401


@pytest.mark.parametrize(
    ("path", "changes", "status"),
    [
        ("/ai-policy/", {}, 404),
        ("/ai-policy/decisions", {}, 404),
        ("/ai-policy/decisions/", {}, 404),
        ("/ai-policy/decisions/a/b", {}, 404),
        ("/ai-policy/usage/x", {}, 404),
        ("/ai-policy/counters", {}, 404),
        ("/ai-policy/usage", {"method": "POST", "has_body": True}, 405),
        ("/ai-policy/usage?by=team&by=user", {}, 400),
        ("/ai-policy/usage?" + "&".join(f"p{i}=1" for i in range(40)), {}, 400),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(
    tmp_path: Path, path: str, changes: dict[str, Any], status: int
) -> None:
    playbook = book(tmp_path)

    assert refused(asks(playbook, path, **changes)) == status
    assert playbook.held == []


def test_a_ledger_that_takes_too_long_is_said_and_its_late_answer_forgotten(tmp_path: Path) -> None:
    playbook = book(tmp_path)
    asks(playbook, "/ai-policy/usage")

    assert refused(playbook.play(DeadlinePassed(at_ns=playbook.now_ns))) == 503
    late = Told(at_ns=playbook.now_ns, reply=Reply(status=200, body=b"{}"))

    assert playbook.play(late) == []


@pytest.mark.parametrize(
    "event", [StreamClosed(at_ns=1), ResponseHeaders(at_ns=1, status=504, is_local_reply=True)]
)
def test_who_leaves_before_the_answer_leaves_nothing_behind(tmp_path: Path, event: Any) -> None:
    playbook = book(tmp_path)
    asks(playbook, "/ai-policy/usage")

    playbook.play(event)

    assert playbook.session.state is State.ABANDONED
    assert playbook.settled == []
