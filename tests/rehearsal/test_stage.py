"""One request without Envoy: what it would be told, how it would go on, and what it would come to."""

import asyncio
import json
from pathlib import Path

from extproc.decision import PolicyRef
from extproc.model import Basis, Identity
from extproc.rehearsal.stage import Answer, Given, Instruments, Rehearsed, rehearse
from tests.rehearsal.streams import folder, policy
from tests.session.playbook import KEY, START_NS, chat_body, chat_head

CAP = policy("UsageCap", "team", "key: [identity.team], limit: {tokens: 1000}, period: day")
CLAMP = policy("RequestCap", "answer", "outputTokens: 50, onExceed: clamp")
ADA = Identity(id="ada", user="ada", team="demo", authenticated=True)


def rehearsed(path: Path, given: Given, *objects: str) -> Rehearsed:
    return asyncio.run(rehearse(folder(path, *objects), given, Instruments()))


def test_a_denied_request_is_answered_in_its_dialect(tmp_path: Path) -> None:
    used = {PolicyRef("UsageCap", "team"): 1000}
    given = Given(head=chat_head(), body=chat_body(), at_ns=START_NS, caller=ADA, used=used)

    found = rehearsed(tmp_path, given, CAP)

    assert found.reply is not None
    assert found.reply.status == 429
    assert "UsageCap/team" in json.loads(found.reply.body)["error"]["message"]
    assert (found.forwarded, found.settlement) == (None, None)


def test_an_allowed_request_goes_on_without_its_credential_and_as_it_was_changed(tmp_path: Path) -> None:
    head = chat_head(headers={"content-type": "application/json", "authorization": f"Bearer {KEY}"})

    found = rehearsed(tmp_path, Given(head=head, body=chat_body(max_tokens=90), at_ns=START_NS), CLAMP)

    assert found.decision.identity.user == "ada"
    assert found.forwarded is not None
    assert "authorization" in found.forwarded.remove_headers
    assert json.loads(found.forwarded.body or b"")["max_tokens"] == 50


def test_an_answer_settles_it(tmp_path: Path) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    answer = Answer(body=json.dumps({"object": "chat.completion", "choices": [], "usage": usage}).encode())
    given = Given(head=chat_head(), body=chat_body(), at_ns=START_NS, caller=ADA, answer=answer)

    found = rehearsed(tmp_path, given, CAP)

    assert found.settlement is not None
    assert found.settlement.basis is Basis.PROVIDER
    assert list(found.settlement.amounts.values()) == [12]
    assert found.charged == {PolicyRef("UsageCap", "team")}


def test_an_answer_without_a_body_settles_it_too(tmp_path: Path) -> None:
    given = Given(head=chat_head(), body=chat_body(), at_ns=START_NS, caller=ADA, answer=Answer(status=503))

    found = rehearsed(tmp_path, given, CAP)

    assert found.settlement is not None
    assert found.settlement.basis is Basis.UPSTREAM_ERROR
