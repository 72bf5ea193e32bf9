"""A running sidecar's ledger, asked through its admin port.

Floor 3. What it says is what `http` wrote.
"""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from extproc.errors import LedgerUnavailable, QuestionInvalid, SettingsInvalid
from extproc.questions.base import DecisionFilter, DecisionPage, UsageQuery, UsageTable
from extproc.questions.explained import Explanation
from extproc.questions.http import NO_DECISION
from extproc.questions.shapes import read

# A sum over a month may take this long.
_ANSWER_S = 60.0


class RemoteLedger:
    """Asks `http://HOST:PORT`. Raises `SettingsInvalid` for a URL that is none."""

    def __init__(self, url: str, token: str = "") -> None:
        parts = urlsplit(url)
        try:
            self._port = parts.port
        except ValueError:
            self._port = 0
        if parts.scheme not in ("http", "https") or not parts.hostname or self._port == 0:
            raise SettingsInvalid(
                "--admin is the URL of a sidecar's admin port, such as http://127.0.0.1:8080"
            )
        self._parts = parts
        self._headers = {"authorization": f"Bearer {token}"} if token else {}

    async def explain(self, decision_id: str) -> Explanation | None:
        """See `Ledger.story`; the explanation of it."""
        status, content = await self._ask(f"/decisions/{quote(decision_id, safe='')}", {})
        return None if status == HTTPStatus.NOT_FOUND else read(Explanation, content)

    async def decisions(self, only: DecisionFilter, *, limit: int = 50, after: str = "") -> DecisionPage:
        """See `Ledger.decisions`."""
        asked = _given(only) | {"limit": str(limit), "after": after}
        return read(DecisionPage, (await self._ask("/decisions", asked))[1])

    async def usage(self, query: UsageQuery) -> UsageTable:
        """See `Ledger.usage`."""
        asked = _given(query.only) | {"by": ",".join(query.by), "zone": query.zone}
        return read(UsageTable, (await self._ask("/usage", asked))[1])

    async def _ask(self, path: str, parameters: Mapping[str, str]) -> tuple[int, bytes]:
        return await asyncio.to_thread(self._answer, f"{path}?{urlencode(parameters)}")

    def _answer(self, target: str) -> tuple[int, bytes]:
        is_https = self._parts.scheme == "https"
        make = http.client.HTTPSConnection if is_https else http.client.HTTPConnection
        connection = make(self._parts.hostname or "", self._port, timeout=_ANSWER_S)
        try:
            connection.request("GET", self._parts.path.rstrip("/") + target, headers=self._headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise LedgerUnavailable(
                f"no sidecar answers at {self._parts.hostname}:{self._port} "
                f"({getattr(error, 'strerror', None) or type(error).__name__}); --admin names another one, "
                "--ledger (EXTPROC_LEDGER) asks the ledger itself"
            ) from error
        finally:
            connection.close()
        # Any server has paths that it does not know; this one says what it does not know.
        if answer.status == HTTPStatus.OK or _problem(content) == NO_DECISION:
            return answer.status, content
        raise self._refused(answer.status, content)

    def _refused(self, status: int, content: bytes) -> Exception:
        said, place = _problem(content), f"{self._parts.hostname}:{self._port}"
        if not said:
            return LedgerUnavailable(
                f"what answers at {place} ({status}) is no admin port of a sidecar; --admin names another one"
            )
        if status == HTTPStatus.BAD_REQUEST:
            return QuestionInvalid(said)
        return LedgerUnavailable(f"the sidecar at {place} says: {said}")


def _given(only: DecisionFilter) -> dict[str, str]:
    return {name: _written(value) for name, value in asdict(only).items() if value not in (None, "")}


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _problem(content: bytes) -> str:
    """What the admin port says is wrong; empty: these are no words of its."""
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return ""
