"""What the demo provider has served: the second opinion that tests hold the sidecar's accounts against.

No text of a prompt or an answer, and of credentials only the names of the headers that carried them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# A benchmark sends millions; the totals keep counting when the oldest entries go.
_KEPT_ENTRIES = 10_000
_CREDENTIAL_HEADERS = (
    "authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "proxy-authorization",
    "cookie",
)
# A signature of Amazon's names its key.
_SIGNED = "AWS4-HMAC-SHA256 Credential="


@dataclass(slots=True, kw_only=True)
class Totals:
    """Sums over everything since the books were last emptied."""

    requests: int = 0
    completed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    chunks_sent: int = 0


@dataclass(slots=True, kw_only=True)
class Entry:
    """One request; it is open until its answer has ended, one way or another."""

    id: str  # the request id the client was told
    api: str
    path: str  # without its query
    query_names: tuple[str, ...]
    request_headers: Mapping[str, str | None]  # values of x-* only
    credential_header_names: tuple[str, ...]
    foreign_credential_names: tuple[str, ...]  # those that carried something else than our own key
    body_sha256: str
    body_bytes: int
    totals: Totals
    model: str = ""
    stream: bool = False
    status: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    chunks_sent: int = 0
    is_open: bool = True
    _completed: bool = field(default=False)

    @property
    def is_complete(self) -> bool:
        """Whether the whole answer was handed to the network."""
        return self._completed

    @is_complete.setter
    def is_complete(self, complete: bool) -> None:
        self.totals.completed += int(complete) - int(self._completed)
        self._completed = complete

    def begin(self, *, model: str, stream: bool, input_tokens: int) -> None:
        """The request was understood and its prompt read."""
        self.model, self.stream, self.input_tokens = model, stream, input_tokens
        self.totals.input_tokens += input_tokens

    def add(self, tokens: int, chunks: int) -> None:
        """So much more was generated and sent."""
        self.output_tokens += tokens
        self.chunks_sent += chunks
        self.totals.output_tokens += tokens
        self.totals.chunks_sent += chunks

    def as_json(self) -> dict[str, Any]:
        """What `GET /books` shows of this entry."""
        decision = {name: value for name, value in self.request_headers.items() if "ai-policy" in name}
        return {
            "id": self.id,
            "api": self.api,
            "path": self.path,
            "query_names": list(self.query_names),
            "model": self.model,
            "stream": self.stream,
            "status": self.status,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "completed": self.is_complete,
            "open": self.is_open,
            "chunks_sent": self.chunks_sent,
            "request_headers": dict(self.request_headers),
            "decision_headers": decision,
            "credential_header_names": list(self.credential_header_names),
            "foreign_credential_names": list(self.foreign_credential_names),
            "body_sha256": self.body_sha256,
            "body_bytes": self.body_bytes,
        }


class Books:
    """Every request since the last emptying, oldest first; the newest 10,000 with their details."""

    def __init__(self, *, own_key: str) -> None:
        self._own_key = own_key
        self.empty()

    def empty(self) -> None:
        """Forget everything; answers still under way count into what was forgotten."""
        self._entries: deque[Entry] = deque(maxlen=_KEPT_ENTRIES)
        self._totals = Totals()

    def open(
        self,
        *,
        request_id: str,
        api: str,
        path: str,
        query_names: tuple[str, ...],
        headers: Mapping[str, str],
        body: bytes,
    ) -> Entry:
        """Write down that a request arrived; `headers` have lower-case names."""
        carried = tuple(name for name in _CREDENTIAL_HEADERS if name in headers)
        entry = Entry(
            id=request_id,
            api=api,
            path=path,
            query_names=query_names,
            request_headers={name: _shown(name, value) for name, value in sorted(headers.items())},
            credential_header_names=carried,
            foreign_credential_names=tuple(name for name in carried if not self.is_own(headers[name])),
            body_sha256=hashlib.sha256(body).hexdigest(),
            body_bytes=len(body),
            totals=self._totals,
        )
        self._totals.requests += 1
        self._entries.append(entry)
        return entry

    def is_own(self, credential: str) -> bool:
        """Whether a header's value is this provider's own key, whatever scheme presents it."""
        key = credential.removeprefix("Bearer ")
        if key.startswith(_SIGNED):
            key = key.removeprefix(_SIGNED).partition("/")[0]
        return hmac.compare_digest(key.encode(), self._own_key.encode())

    def as_json(self) -> dict[str, Any]:
        """All there is to see."""
        totals = {name: getattr(self._totals, name) for name in Totals.__slots__}
        return {"entries": [entry.as_json() for entry in self._entries], "totals": totals}


def _shown(name: str, value: str) -> str | None:
    return value if name.startswith("x-") and name not in _CREDENTIAL_HEADERS else None
