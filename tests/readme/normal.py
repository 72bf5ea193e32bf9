"""What differs from run to run, replaced by examples of the same shape; durations become `…`."""

from __future__ import annotations

import re
from collections.abc import Mapping

EXAMPLE_SECOND = 1_767_268_800  # 2026-01-01T12:00:00Z
_UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-([0-9a-f])[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b")
_ALWAYS = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"), "2026-01-01T12:00:00.000Z"),
    (re.compile(r"^date: .*$", re.MULTILINE), "date: Thu, 01 Jan 2026 12:00:00 GMT"),
    (re.compile(r'"created": \d+'), f'"created": {EXAMPLE_SECOND}'),
    (re.compile(r"\bchatcmpl-[A-Za-z0-9]+"), "chatcmpl-example"),
    (re.compile(r"\breq_[0-9A-Za-z]+"), "req_example"),
    (re.compile(r'("(?:duration_ms|\w+_latency_us)": )\d+'), r'\1"…"'),
    # A port number or a version of curl is part of these.
    (re.compile(r'("ai_policy": \{.*?"bytes_received": )\d+(.*?"bytes_sent": )\d+'), r'\1"…"\2"…"'),
    (re.compile(r"(time_to_first_chunk=)\S+"), r"\1…"),
    (re.compile(r'("trace_id": ")[0-9a-f]{32}'), r"\g<1>0af7651916cd43dd8448eb211c80319c"),
    (re.compile(r'("span_id": ")[0-9a-f]{16}'), r"\g<1>b7ad6b7169203331"),
    # What a limit has refilled meanwhile.
    (re.compile(r"Used \d+"), "Used …"),
    (re.compile(r"try again in [\d.]+m?s"), "try again in …"),
)


class Normal:
    """One run's ids and addresses, each replaced by the same example wherever it turns up."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self._addresses = dict(addresses)
        self._ids: dict[str, str] = {}

    def text(self, text: str) -> str:
        """The text as the README has it."""
        for ours, example in self._addresses.items():
            text = text.replace(ours, example)
        text = _UUID.sub(self._example, text)
        for pattern, example in _ALWAYS:
            text = pattern.sub(example, text)
        return text

    def _example(self, found: re.Match[str]) -> str:
        number = len(self._ids) + 1
        return self._ids.setdefault(found[0], f"019b7950-0000-{found[1]}000-8000-{number:012d}")
