"""Log records: one JSON object a line on standard error.

Floor 3. A record holds what `extra` gives it; nobody formats a request or an exception's text into one
that a client could have written.
"""

from __future__ import annotations

import json
import logging
import sys
import time

from extproc.decision import Decision, Effect, Reason

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
        return json.dumps(fields, ensure_ascii=False, default=str)


def configure_logging(level: str) -> None:
    """Send every logger of this process to standard error, as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Their own lines repeat ours, or put request lines on record.
    for noisy in ("uvicorn", "uvicorn.error", "watchfiles.main"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def decided(decision: Decision) -> None:
    """Put denials, shadow denials, what passed unread and our own failures on record.

    Other allowed requests are in the spans.
    """
    is_plain = decision.enforced_effect is Effect.ALLOW and decision.reason is not Reason.UNCLASSIFIED
    if is_plain and not decision.would_deny and not decision.error_type:
        return
    level = logging.ERROR if decision.error_type else logging.WARNING
    log.log(
        level,
        "ai_policy.decision",
        extra={
            "decision_id": decision.id,
            "effect": decision.effect.value,
            "enforced_effect": decision.enforced_effect.value,
            "reason_code": decision.reason.value,
            "policy": str(decision.determining or ""),
            "would_deny": [str(f.policy) for f in decision.spoken if f.would_deny],
            "identity": decision.identity.id,
            "team": decision.identity.team,
            "revision": decision.revision,
            "error_type": decision.error_type,
        },
    )
