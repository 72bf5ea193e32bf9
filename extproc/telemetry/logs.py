"""Log records: one JSON object a line on standard error.

Floor 3. A record holds what `extra` gives it; nobody formats a request or an exception's text into one
that a client could have written. A flood of denials is a few lines a second and a count of the rest.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

from extproc.decision import Decision, Effect, Reason
from extproc.telemetry.instruments import Figure
from extproc.telemetry.parents import span_id_of

log = logging.getLogger("extproc.decisions")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JSONFormatter(logging.Formatter):
    """A record and its extras as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Render; an exception is its type and where it was raised, never its text."""
        fields: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info and record.exc_info[0] is not None:
            fields["exception"] = record.exc_info[0].__name__
            trace = record.exc_info[2]
            frames = []
            while trace is not None:
                frames.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
                trace = trace.tb_next
            fields["stack"] = frames
        return _harmless(json.dumps(fields, ensure_ascii=False, default=str))


def _harmless(line: str) -> str:
    """The same JSON with everything escaped that a terminal would not just print: people choose names."""
    if line.isprintable():
        return line
    return "".join(
        letter if letter.isprintable() else json.dumps(letter)[1:-1].replace("\x7f", "\\u007f")
        for letter in line
    )


def configure_logging(level: str) -> None:
    """Send every logger of this process to standard error, as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Their own lines repeat ours, or put request lines on record.
    for noisy in ("uvicorn", "uvicorn.error", "watchfiles.main"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class Kind(NamedTuple):
    """What lines have in common that would only repeat each other."""

    policy: str
    reason_code: str
    identity: str


class Bounded:
    """Admits a few lines a second of each kind and of all; the rest it counts, and says so once a second."""

    def __init__(self, *, of_a_kind: int = 5, in_all: int = 50, summaries: int = 10) -> None:
        self.suppressed = 0
        self._of_a_kind = of_a_kind
        self._in_all = in_all
        self._summaries = summaries
        self._began_ns = 0
        self._written: Counter[Kind] = Counter()
        self._suppressed: Counter[Kind] = Counter()

    def admits(self, kind: Kind, at_ns: int) -> bool:
        """Whether to write this line; `at_ns` is now."""
        # A clock that was set back begins a new second too.
        if not self._began_ns <= at_ns < self._began_ns + _SECOND_NS:
            self.summarise()
            self._began_ns = at_ns
            self._written.clear()
        if self._written[kind] < self._of_a_kind and self._written.total() < self._in_all:
            self._written[kind] += 1
            return True
        if not self._suppressed:
            _later(self)
        # Callers can be many; what is remembered of them is not.
        is_known = kind in self._suppressed or len(self._suppressed) < self._summaries
        self._suppressed[kind if is_known else _OTHERS] += 1
        self.suppressed += 1
        return False

    def summarise(self) -> None:
        """Say what was not written since the last time."""
        for kind, count in self._suppressed.items():
            log.warning("ai_policy.decisions suppressed", extra={"suppressed": count, **kind._asdict()})
        self._suppressed.clear()


def _later(bounded: Bounded) -> None:
    """Have it summarised even if nobody is denied any more."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # outside of the server the next line does it
        return
    loop.call_later(_SECOND_NS / 1e9, bounded.summarise)


_SECOND_NS: Final = 1_000_000_000
_OTHERS: Final = Kind("others", "", "")
_decisions: Final = Bounded()


def figures() -> Iterator[Figure]:
    """How much was not written."""
    yield Figure(
        "ai_policy.log_lines.suppressed",
        "{line}",
        "Lines about decisions that a flood of their kind kept from the log.",
        lambda: _decisions.suppressed,
        only_rises=True,
    )


def is_noteworthy(decision: Decision) -> bool:
    """Whether somebody will ask about it: a denial, a shadow denial, what passed unread, our own failure."""
    is_plain = decision.enforced_effect is Effect.ALLOW and decision.reason is not Reason.UNCLASSIFIED
    return not is_plain or bool(decision.error_type) or decision.would_deny


def decided(decision: Decision, bounded: Bounded = _decisions) -> None:
    """Put a noteworthy decision on record; other allowed requests are in the spans."""
    if not is_noteworthy(decision):
        return
    policy = str(decision.determining or "")
    if not bounded.admits(Kind(policy, decision.reason.value, decision.identity.id), decision.decided_at_ns):
        return
    fields: dict[str, object] = {
        "decision_id": decision.id,
        "effect": decision.effect.value,
        "enforced_effect": decision.enforced_effect.value,
        "reason_code": decision.reason.value,
        "policy": policy,
        "would_deny": [str(f.policy) for f in decision.spoken if f.would_deny],
        "identity": decision.identity.id,
        "team": decision.identity.team,
        "revision": decision.revision,
        "error_type": decision.error_type,
    }
    if decision.trace.trace_id:
        fields |= {"trace_id": decision.trace.trace_id, "span_id": span_id_of(decision.id)}
    level = logging.ERROR if decision.error_type else logging.WARNING
    log.log(level, "ai_policy.decision", extra=fields)
