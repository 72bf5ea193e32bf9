"""Questions to the ledger as SQL of both databases, and the answers as values.

Floor 3, pure but for the statements: a look goes in, values come out. Who asks when is `reader`'s.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from google.protobuf.message import DecodeError

from extproc.decision import Decision, Effect, Reason
from extproc.errors import LedgerUnavailable, QuestionInvalid
from extproc.ledger import restored
from extproc.ledger.book import Reading, Row
from extproc.ledger.storable import column
from extproc.pb.ai_policy.v1 import records_pb2 as pb
from extproc.questions.base import MOST_LINES, DecisionFilter, DecisionLine, DecisionPage, Story

# Times as either database holds them.
FIRST_US: Final = -(2**62)
LAST_US: Final = 2**62
# Of the ends of a decision the last one counts, as in the view `spend`.
LAST_USAGE: Final = (
    "LEFT JOIN usage AS u ON u.decision_id = d.id AND NOT EXISTS"
    " (SELECT 1 FROM usage AS later WHERE later.decision_id = u.decision_id AND later.sequence > u.sequence)"
)
# What a decision is filtered and grouped by, in the words of questions -> the column of `decisions`.
COLUMN_OF: Final[Mapping[str, str]] = MappingProxyType(
    {
        "team": "d.team",
        "user": "d.user_name",
        "key": "d.key_name",
        "identity": "d.identity",
        "provider": "d.provider",
        "model": "d.model",
        "operation": "d.operation",
        "policy": "d.policy",
        "reason": "d.reason",
    }
)
# Written out, because an index of some rows is used only where the statement itself says that it will do.
_REASONS: Final = frozenset(reason.value for reason in Reason)
_EFFECT: Final[Mapping[str, str]] = MappingProxyType(
    {"": "", **{effect.value: f"d.enforced_effect = '{effect.value}'" for effect in Effect}}
)
_WOULD_DENY: Final[Mapping[bool | None, str]] = MappingProxyType(
    {None: "", True: "d.would_deny", False: "NOT d.would_deny"}
)
_LINE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "decision_id": "d.id",
        "at_us": "d.occurred_at_us",
        "effect": "d.effect",
        "enforced_effect": "d.enforced_effect",
        "would_deny": "d.would_deny",
        **COLUMN_OF,
        "is_open": "d.is_open",
        "basis": "COALESCE(u.basis, '')",
        "is_provisional": "CASE WHEN u.kind = 'EXPIRE' THEN 1 ELSE 0 END",
        "input_tokens": "u.input_tokens",
        "output_tokens": "u.output_tokens",
        "nano_usd": "u.nano_usd",
    }
)
_FLAGS: Final = ("would_deny", "is_open", "is_provisional")  # numbers to SQLite
_NEWEST_FIRST: Final = "ORDER BY d.occurred_at_us DESC, d.id DESC LIMIT ?"
_AFTER: Final = "d.occurred_at_us <= ? AND (d.occurred_at_us < ? OR d.id < ?)"


def story(reading: Reading, decision_id: str) -> Story | None:
    """Everything there is of one decision. Raises `LedgerUnavailable` for a record of a newer release."""
    name = column(decision_id)
    found = reading.rows("SELECT instance, record FROM decisions WHERE id = ?", (name,))
    if not found:
        return None
    ((instance, data),) = found
    ends = reading.rows("SELECT record FROM usage WHERE decision_id = ? ORDER BY sequence", (name,))
    try:
        record = pb.DecisionRecord.FromString(bytes(data))
        decision = restored.decision(record)
        endings = tuple(pb.UsageRecord.FromString(bytes(end)) for (end,) in ends)
        wording = _wording(reading, decision)
    except (ValueError, KeyError, TypeError, DecodeError) as error:
        raise LedgerUnavailable("this record is not one that this release understands") from error
    return Story(
        decision=decision,
        instance=instance,
        shed=tuple(record.shed),
        endings=endings,
        wording=wording,
    )


def _wording(reading: Reading, decision: Decision) -> Mapping[str, str]:
    found = reading.rows("SELECT wording FROM revisions WHERE revision = ?", (column(decision.revision),))
    return MappingProxyType(json.loads(found[0][0])) if found else MappingProxyType({})


def decisions(reading: Reading, only: DecisionFilter, *, limit: int, after: str) -> DecisionPage:
    """One page. Raises `QuestionInvalid`."""
    if limit < 1:
        raise QuestionInvalid(f"limit is from 1 to {MOST_LINES}")
    limit = min(limit, MOST_LINES)
    conditions, parameters = where(only)
    if after:
        at_us, name = _read_cursor(after)
        conditions, parameters = f"{conditions} AND {_AFTER}", (*parameters, at_us, at_us, name)
    source = f"decisions AS d {LAST_USAGE} WHERE {conditions} {_NEWEST_FIRST}"
    statement = f"SELECT {', '.join(_LINE.values())} FROM {source}"  # noqa: S608  our own words
    rows = reading.rows(statement, (*parameters, limit + 1))
    lines = tuple(_line(row) for row in rows[:limit])
    return DecisionPage(
        lines=lines, next=_cursor(lines[-1].at_us, lines[-1].decision_id) if len(rows) > limit else ""
    )


def where(only: DecisionFilter) -> tuple[str, Row]:
    """The filter as a condition on `decisions AS d`, both ends of time included. Raises `QuestionInvalid`."""
    if only.enforced_effect not in _EFFECT:
        raise QuestionInvalid(f"enforced_effect is {' or '.join(filter(None, _EFFECT))}")
    if only.reason and only.reason not in _REASONS:
        raise QuestionInvalid(f"reason is one of {', '.join(sorted(_REASONS))}")
    asked = {name: column(_spelled(name, getattr(only, name))) for name in COLUMN_OF if getattr(only, name)}
    conditions = [
        "d.occurred_at_us >= ? AND d.occurred_at_us < ?",
        _EFFECT[only.enforced_effect],
        _WOULD_DENY[only.would_deny],
        *(f"{COLUMN_OF[name]} = ?" for name in asked),
    ]
    return " AND ".join(filter(None, conditions)), (*span_us(only), *asked.values())


def _spelled(name: str, value: str) -> str:
    """As it is on record: names of models in lower case."""
    return value.lower() if name == "model" else value


def span_us(only: DecisionFilter) -> tuple[int, int]:
    """From when to when, as either database can hold it."""
    since_us = FIRST_US if only.since_us is None else only.since_us
    until_us = LAST_US if only.until_us is None else only.until_us
    return max(FIRST_US, min(since_us, LAST_US)), max(FIRST_US, min(until_us, LAST_US))


def is_about_decisions(only: DecisionFilter) -> bool:
    """Whether a filter asks for more than a time: then nothing counts whose decision was lost."""
    return DecisionFilter(since_us=only.since_us, until_us=only.until_us) != only


def _line(row: Row) -> DecisionLine:
    values: dict[str, Any] = dict(zip(_LINE, row, strict=True))
    return DecisionLine(**(values | {name: bool(values[name]) for name in _FLAGS}))


# --- where a page ends


def _cursor(at_us: int, name: str) -> str:
    return base64.urlsafe_b64encode(f"{at_us}:{name}".encode()).decode().rstrip("=")


def _read_cursor(text: str) -> tuple[int, str]:
    try:
        written = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
        at, _, name = written.partition(":")
        at_us = int(at)
    except (ValueError, binascii.Error) as error:
        raise _no_cursor() from error
    if text != _cursor(at_us, name) or not FIRST_US <= at_us <= LAST_US or name != column(name):
        raise _no_cursor()
    return at_us, name


def _no_cursor() -> QuestionInvalid:
    return QuestionInvalid("after is what an earlier page gave as next")
