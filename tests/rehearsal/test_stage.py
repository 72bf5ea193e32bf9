"""One request without Envoy: what would be decided, and which limits would count it."""

import asyncio
from pathlib import Path

from extproc.decision import Effect, PolicyRef, Reason
from extproc.model import Identity
from extproc.rehearsal.stage import Given, Instruments, Rehearsed, rehearse
from tests.rehearsal.streams import folder, policy
from tests.session.playbook import KEY, START_NS, chat_body, chat_head

CAP = policy("UsageCap", "team", "key: [identity.team], limit: {tokens: 1000}, period: day")
CLAMP = policy("RequestCap", "answer", "outputTokens: 50, onExceed: clamp")
ADA = Identity(id="ada", user="ada", team="demo", authenticated=True)
TEAM = PolicyRef("UsageCap", "team")


def rehearsed(path: Path, given: Given, *objects: str) -> Rehearsed:
    return asyncio.run(rehearse(folder(path, *objects), given, Instruments()))


def test_a_request_meets_what_is_used_already(tmp_path: Path) -> None:
    given = Given(head=chat_head(), body=chat_body(), at_ns=START_NS, caller=ADA, used={TEAM: 1000})

    found = rehearsed(tmp_path, given, CAP)

    assert (found.decision.enforced_effect, found.decision.reason) == (Effect.DENY, Reason.CAP_REACHED)
    assert found.decision.determining == TEAM
    assert found.charged == {TEAM}


def test_an_allowed_request_is_known_by_its_credential_and_changed_as_policy_says(tmp_path: Path) -> None:
    head = chat_head(headers={"content-type": "application/json", "authorization": f"Bearer {KEY}"})

    found = rehearsed(tmp_path, Given(head=head, body=chat_body(max_tokens=90), at_ns=START_NS), CLAMP)

    assert found.decision.identity.user == "ada"
    assert found.decision.request is not None
    assert found.decision.request.max_output_tokens == 50
    assert found.charged == frozenset()
