"""Whose price a session charges: that of the policies it started with."""

import json
from pathlib import Path

from extproc.decision import Cost
from extproc.session.actions import Continue, RespondImmediately
from tests.session.playbook import Playbook, chat_body, load

CHOICE = {"index": 0, "message": {"role": "assistant", "content": "abc"}, "finish_reason": "stop"}
USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}


def price(dollars: int) -> str:
    return f"""
apiVersion: ai-policy/v1
kind: Price
metadata: {{name: ours}}
spec: {{models: [ours], usdPerMillion: {{input: {dollars}, output: {dollars}}}}}
"""


RULE = """
apiVersion: ai-policy/v1
kind: AccessRule
metadata: {name: not-too-dear}
spec: {effect: deny, match: cost.estimated_usd > 0.5}
"""


def start(folder: Path, *objects: str) -> Playbook:
    return Playbook(load(folder, *objects))


def finish(book: Playbook) -> Cost | None:
    book.answer_headers()
    (end,) = book.answer_body(
        json.dumps({"id": "c", "model": "ours", "choices": [CHOICE], "usage": USAGE}).encode()
    )
    cost = book.settlement.cost
    assert isinstance(end, Continue)
    assert end.metadata.get("cost_nano_usd") == (cost and cost.nano_usd)
    return cost


def test_a_reload_does_not_change_the_price_of_a_request_under_way(tmp_path: Path) -> None:
    old = start(tmp_path, price(1))
    old.request(body=chat_body(model="ours"))
    new = start(tmp_path, price(2))
    new.request(body=chat_body(model="ours"))

    before, after = finish(old), finish(new)

    assert before == Cost(1_100_000, f"Price/ours@{old.policies.revision}")
    assert after == Cost(2_200_000, f"Price/ours@{new.policies.revision}")
    assert old.policies.revision != new.policies.revision


def test_a_session_is_denied_by_what_its_request_may_cost(tmp_path: Path) -> None:
    cheap, dear = start(tmp_path, price(1), RULE), start(tmp_path, price(100), RULE)
    body = chat_body(model="ours", max_tokens=10_000)

    *_, passed = cheap.request(body=body)
    *_, denied = dear.request(body=body)

    assert isinstance(passed, Continue)
    assert isinstance(denied, RespondImmediately)
    assert denied.status == 403
