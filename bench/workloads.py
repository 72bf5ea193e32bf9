"""What callers ask for. Values only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

PROMPT = (
    "Explain in one short sentence why a gateway should count the tokens of a prompt before it forwards it."
)
# The caller of the sample policies.
KEY = "sk-demo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One kind of request, and over how many connections it comes."""

    name: str
    about: str
    body: dict[str, Any]
    headers: dict[str, str]  # what the demo provider is told
    ending: str
    connections: int

    @property
    def request(self) -> str:
        """The request's bytes, as Latin-1."""
        body = json.dumps(self.body)
        headers = {
            "host": "127.0.0.1",
            "authorization": f"Bearer {KEY}",
            "content-type": "application/json",
            "content-length": str(len(body)),
            **self.headers,
        }
        lines = ("POST /v1/chat/completions HTTP/1.1", *(f"{name}: {text}" for name, text in headers.items()))
        return "\r\n".join(lines) + "\r\n\r\n" + body


def workloads(connections: int) -> tuple[Workload, ...]:
    """The benchmark's workloads; the busy ones come over so many connections."""
    chat: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": PROMPT}]}
    # Asked for by the client, so that the stream needs no change and may pass Python by.
    stream = chat | {"stream": True, "stream_options": {"include_usage": True}}
    one_token = {"x-demo-output-tokens": "1"}
    return (
        Workload(
            name="chat_alone",
            about=f"JSON chat, prompt of {len(PROMPT)} bytes, answer of 1 token",
            body=chat,
            headers=one_token,
            ending="}",
            connections=1,
        ),
        Workload(
            name="chat",
            about=f"JSON chat, prompt of {len(PROMPT)} bytes, answer of 1 token",
            body=chat,
            headers=one_token,
            ending="}",
            connections=connections,
        ),
        Workload(
            name="stream",
            about="streamed chat, 200 chunks of one token, one a millisecond, the client asks for usage",
            body=stream,
            # Without the pause the provider would write many chunks at once, which no real one does.
            headers={"x-demo-output-tokens": "200", "x-demo-interval-ms": "1"},
            ending="data: [DONE]\n\n",
            connections=connections,
        ),
    )
