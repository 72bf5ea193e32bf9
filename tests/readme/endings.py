"""How answers end, and what each ending is settled on, in both usage modes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx

from tests.e2e.callers import settlements
from tests.e2e.stack import Stack
from tests.readme.markdown import code, table
from tests.readme.ours import HELLO, client, wait_until

ASKED = {"stream": True, "stream_options": {"include_usage": True}}


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """One way for an answer to end."""

    what: str
    body: Mapping[str, Any]
    fault: str = ""
    leaves: bool = False


WAYS = (
    How(what="a JSON answer with usage", body={}),
    How(what="a stream whose client asked for usage", body=ASKED),
    How(what="a stream whose client did not ask for usage", body={"stream": True}),
    How(what="a compressed answer, asked for or not", body={}, fault="gzip"),
    How(what="a JSON answer without usage", body={}, fault="no-usage"),
    How(what="a stream without usage", body=ASKED, fault="no-usage"),
    How(what="an error of the provider", body={}, fault="status=500"),
    How(what="the provider cuts its stream", body=ASKED, fault="after=5,slow=100"),
    How(what="the client leaves in the middle of a stream", body=ASKED, leaves=True),
    How(what="the same, of a stream whose client did not ask for usage", body={"stream": True}, leaves=True),
)


def table_of(stacks: Mapping[str, Stack]) -> str:
    """Each ending, and the basis it settled on in each usage mode."""
    rows = [(way.what, *(code(_basis(stack, way)) for stack in stacks.values())) for way in WAYS]
    return table(("the answer", *(f"`--usage {usage}`" for usage in stacks)), rows)


def _basis(stack: Stack, way: How) -> str:
    before = settlements(stack)
    _ask(stack, way)
    wait_until(lambda: settlements(stack) != before, f"a settlement of: {way.what}")
    (basis,) = (name for name, count in settlements(stack).items() if count != before.get(name, 0))
    return basis


def _ask(stack: Stack, way: How) -> None:
    body = {"model": "gpt-4o-mini", "messages": HELLO, "max_tokens": 100, **way.body}
    headers = {"x-demo-fault": way.fault} if way.fault else {}
    if way.leaves:
        headers |= {"x-demo-output-tokens": "100", "x-demo-interval-ms": "30"}
    with (
        client(stack) as http,
        # A stream that is cut is an error for its client, as it should be.
        suppress(httpx.RemoteProtocolError),
        http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer,
    ):
        if way.leaves:
            next(answer.iter_bytes())
        else:
            answer.read()
