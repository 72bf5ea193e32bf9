"""How a record is kept below 8 KiB: what is left out first, and what never. Pure.

Never the ids and the verdict. What was left out is named in the record itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from extproc.ledger.records import SILENT
from extproc.pb.ai_policy.v1 import facts_pb2
from extproc.pb.ai_policy.v1 import records_pb2 as pb

# A record may have to travel as a log line or a datagram, which many tools cut at this.
LARGEST_RECORD_BYTES: Final = 8 * 1024
_LONG_LIST_BYTES: Final = 512
# What a text has left where texts had to be cut; a message of ours is longer than a name.
_LONGEST_TEXT: Final = 128
_LONGEST_MESSAGE: Final = 1024
# Whole or not at all: a piece of one names another counter.
_NEVER_CUT: Final = frozenset({"counter"})

Record = pb.DecisionRecord | pb.UsageRecord | pb.ChangeRecord
Facts = facts_pb2.Facts  # of a decision; of other records empty
Part = tuple[str, Callable[[Any, Facts], None]]


def fitting(record: Record) -> bytes:
    """The record's bytes, with as much of it as has room; changes the record."""
    data = record.SerializeToString()
    if len(data) <= LARGEST_RECORD_BYTES:
        return data
    if isinstance(record, pb.DecisionRecord):
        known = Facts.FromString(record.facts)
        return _shed(record, known, _decision_parts(record, known))
    return _shed(record, Facts(), _USAGE if isinstance(record, pb.UsageRecord) else _CHANGE)


def _shed(record: Record, known: Facts, parts: Iterable[Part]) -> bytes:
    for part, leave_out in parts:
        before = record.ByteSize()
        leave_out(record, known)
        if isinstance(record, pb.DecisionRecord):
            record.facts = known.SerializeToString()
        if record.ByteSize() < before:
            record.shed.append(part)
        if record.ByteSize() <= LARGEST_RECORD_BYTES:
            break
    return record.SerializeToString()


def _decision_parts(record: pb.DecisionRecord, known: Facts) -> list[Part]:
    """Lists before texts and the longest first, but nothing short while there is something long."""
    not_matched = [finding for finding in record.findings if finding.outcome == "not_matched"]
    identity = known.identity
    sizes = {
        "models": sum(map(len, known.request.models)),
        "tools": sum(map(len, known.request.tools)),
        SILENT: sum(finding.ByteSize() for finding in not_matched),
        "groups": sum(map(len, identity.groups)),
        "labels": sum(len(name) + len(value) for name, value in identity.labels.items()),
        "claims": sum(len(name) + len(value) for name, value in identity.claims.items()),
        "attributes": sum(len(name) + len(value) for name, value in record.attributes.items()),
    }
    ranked = sorted(_LISTS, key=lambda part: sizes[part[0]], reverse=True)
    long = [part for part in ranked if sizes[part[0]] >= _LONG_LIST_BYTES]
    return [*long, _TEXTS, *ranked[len(long) :], *_DECISION_LAST]


def _without(field: str) -> Callable[[Any, Facts], None]:
    return lambda record, _: record.ClearField(field)


def _keep_findings(wanted: Callable[[pb.FindingRecord], bool]) -> Callable[[Any, Facts], None]:
    def leave_out(record: pb.DecisionRecord, _: Facts) -> None:
        kept = [finding for finding in record.findings if wanted(finding)]
        del record.findings[:]
        record.findings.extend(kept)

    return leave_out


def _cut_long_texts(record: Record, known: Facts) -> None:
    _cut_texts(record)
    _cut_texts(known)


def _cut_texts(message: Message) -> None:
    """Cut every long text in the message and in all below it."""
    for field, value in message.ListFields():
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        if field.name in _NEVER_CUT:
            continue
        if is_map:
            _cut_map(value)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for each in value if field.is_repeated else (value,):
                _cut_texts(each)
        elif field.type == FieldDescriptor.TYPE_STRING:
            longest = _LONGEST_MESSAGE if field.name == "message" else _LONGEST_TEXT
            if field.is_repeated:
                value[:] = [_cut(text, longest) for text in value]
            else:
                setattr(message, field.name, _cut(value, longest))


def _cut_map(entries: Mapping[str, str | Message]) -> None:
    for value in entries.values():
        if isinstance(value, Message):
            _cut_texts(value)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


_LISTS: Final[tuple[Part, ...]] = (
    ("models", lambda _, known: known.request.ClearField("models")),
    ("tools", lambda _, known: known.request.ClearField("tools")),
    (SILENT, _keep_findings(lambda finding: finding.outcome != "not_matched")),
    ("groups", lambda _, known: known.identity.ClearField("groups")),
    ("labels", lambda _, known: known.identity.ClearField("labels")),
    ("claims", lambda _, known: known.identity.ClearField("claims")),
    ("attributes", _without("attributes")),
)
_TEXTS: Final[Part] = ("long_texts", _cut_long_texts)
_DECISION_LAST: Final[tuple[Part, ...]] = (
    ("findings_not_determining", _keep_findings(lambda finding: finding.determining)),
    ("charges", _without("charges")),
)
# In this order, until the record fits.
_USAGE: Final[tuple[Part, ...]] = (
    ("finish_reasons", _without("finish_reasons")),
    _TEXTS,
    ("amounts", _without("amounts")),
)
_CHANGE: Final[tuple[Part, ...]] = (_TEXTS, ("details", _without("details")), ("key", _without("key")))
