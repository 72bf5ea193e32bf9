"""Conversations with a session: what Envoy says, what the session wants, and a store that remembers.

No gRPC, no Envoy, no clock: time is a number that tests move.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from extproc.decision import Decision, Settlement
from extproc.errands import rewritten, understood
from extproc.measure.prices import Prices
from extproc.measure.tokens import Tokenizer
from extproc.model import RequestHead, Source
from extproc.policy import policyset
from extproc.policy.policyset import PolicySet
from extproc.session.actions import (
    Action,
    AwaitBytes,
    Continue,
    CountOutput,
    Defer,
    Record,
    Report,
    Reserve,
    RespondImmediately,
    Rewrite,
    Settle,
    Understand,
)
from extproc.session.admission import SessionSettings
from extproc.session.events import (
    BytesSent,
    ChargesReserved,
    Event,
    OutputCounted,
    Recorded,
    RequestBody,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
    StreamClosed,
)
from extproc.session.session import Session
from extproc.store.memory import MemoryStore
from extproc.understand import understand

SECOND_NS = 1_000_000_000
START_NS = 1_790_000_000 * SECOND_NS
KEY = "sk-test"
# sha256 of KEY
KEY_SHA256 = "f3abf2a6cc4f00987743db5f544ba345b4899ae31f326d8ee9c4816de153c9e0"

BASE_POLICY = """
apiVersion: ai-policy/v1
kind: Defaults
metadata: {name: defaults}
spec: {access: allow, maxBodyBytes: 1000000}
"""


def load(folder: Path, *objects: str, audit: str = "best_effort") -> PolicySet:
    """A policy set of the base and these objects."""
    folder.mkdir(exist_ok=True)
    base = BASE_POLICY.replace("access: allow", f"access: allow, audit: {audit}")
    (folder / "all.yaml").write_text("\n---\n".join([base, *objects]))
    return policyset.load(folder)


def chat_head(**changes: Any) -> RequestHead:
    values: dict[str, Any] = {
        "method": "POST",
        "host": "gateway",
        "path": "/v1/chat/completions",
        "headers": {"content-type": "application/json"},
        "source": Source(address="10.0.0.1", route="ai"),
        "has_body": True,
    }
    return RequestHead(**(values | changes))


def chat_body(**changes: Any) -> bytes:
    body: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
    return json.dumps(body | changes).encode()


Said = list[Continue | RespondImmediately]


@dataclass
class Playbook:
    """Plays one session; answers what it asks for at once unless `holds` names the action's type."""

    policies: PolicySet
    native_usage: bool = False
    store: MemoryStore = field(default_factory=MemoryStore)
    now_ns: int = START_NS
    decision_id: str = "decision-1"
    holds: tuple[type, ...] = ()
    prices: Prices = field(default_factory=Prices)

    def __post_init__(self) -> None:
        self.session = Session(
            self.policies,
            decision_id=self.decision_id,
            settings=SessionSettings(native_usage=self.native_usage, prices=self.prices),
        )
        self.said: Said = []
        self.held: list[Action] = []
        self.reports: list[Report] = []
        self.settled: list[Settlement] = []

    def play(self, *events: Event) -> Said:
        """Feed events; returns what was said to Envoy for these."""
        before = len(self.said)
        for event in events:
            self._advance(event)
        return self.said[before:]

    def _advance(self, event: Event) -> None:
        for action in self.session.receive(event):
            if isinstance(action, self.holds):
                self.held.append(action)
            else:
                self.do(action)

    def do(self, action: Action) -> None:  # noqa: C901  a case an action
        """Do what the session wants, as the edge would."""
        match action:
            case Continue() | RespondImmediately():
                self.said.append(action)
            case Report():
                self.reports.append(action)
            case Understand():
                result = understand(
                    action.head,
                    action.call,
                    action.body,
                    max_body_bytes=action.max_body_bytes,
                    tokenizer=Tokenizer({}),
                    asks_for_usage=action.asks_for_usage,
                )
                self._advance(understood(result, self.now_ns))
            case Reserve():
                outcomes = asyncio.run(
                    self.store.reserve(action.decision_id, action.charges, self.now_ns // 1000)
                )
                self._advance(ChargesReserved(at_ns=self.now_ns, outcomes=outcomes))
            case AwaitBytes():
                self.play(BytesSent(at_ns=self.now_ns, body_bytes=None))
            case CountOutput():
                self._advance(OutputCounted(at_ns=self.now_ns, tokens=len(action.text)))
            case Defer():
                self._advance(action.event)
            case Settle():
                self.settled.append(action.settlement)
                asyncio.run(
                    self.store.settle(action.reservation_id, action.settlement.amounts, self.now_ns // 1000)
                )
            case Rewrite():
                self._advance(rewritten(action, lambda: self.now_ns))
            case Record(waits=True):
                self._advance(Recorded(at_ns=self.now_ns))

    # --- the commonest lines of a conversation

    def request(self, head: RequestHead | None = None, body: bytes | None = None) -> Said:
        return self.play(
            RequestHeaders(at_ns=self.now_ns, head=head or chat_head()),
            RequestBody(at_ns=self.now_ns, body=chat_body() if body is None else body),
        )

    def headers(self, head: RequestHead | None = None) -> Said:
        return self.play(RequestHeaders(at_ns=self.now_ns, head=head or chat_head()))

    def answer_headers(self, status: int = 200, **changes: Any) -> Said:
        values: dict[str, Any] = {"headers": {"content-type": "application/json"}}
        return self.play(ResponseHeaders(at_ns=self.now_ns, status=status, **(values | changes)))

    def answer_body(self, body: bytes, *, end: bool = True) -> Said:
        return self.play(ResponseBody(at_ns=self.now_ns, body=body, end_of_stream=end))

    def close(self) -> None:
        self.play(StreamClosed(at_ns=self.now_ns))

    @property
    def decision(self) -> Decision:
        assert self.session.decision is not None
        return self.session.decision

    @property
    def settlement(self) -> Settlement:
        """The one settlement. Fails if there is none, or more than one."""
        (settlement,) = self.settled
        return settlement


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]
