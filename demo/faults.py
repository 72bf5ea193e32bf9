"""The faults a request may ask for in `x-demo-fault`, and what they do to an answer.

status=429        an error of that status in the dialect, with retry-after
retry-after=5     seconds, for the error above
hang=2.5          seconds of silence before the headers
after=3           the connection is cut after that many chunks
error-after=3     an error event after that many chunks
slow=20           milliseconds more between chunks
usage=zero|null   usage that says nothing was used, or null
no-usage          no usage at all
gzip              a compressed body, asked for or not
garbage           a body that is not JSON, with status 200
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from demo.answers import CUT, Part
from demo.asked import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What one request wants to go wrong; nothing by default."""

    status: int | None = None
    retry_after: int = 1
    hang: float = 0.0
    after: int | None = None
    error_after: int | None = None
    slow: int = 0
    usage: str = "true"
    no_usage: bool = False
    gzip: bool = False
    garbage: bool = False

    @property
    def usage_mode(self) -> str:
        """How usage is told: `true`, `zero`, `null` or `absent`."""
        return "absent" if self.no_usage else self.usage


def _usage(word: str) -> str:
    if word not in {"zero", "null"}:
        raise ValueError(word)
    return word


def _flag(word: str) -> bool:
    if word:
        raise ValueError(word)
    return True


def _status(word: str) -> int:
    status = int(word)
    if not 400 <= status <= 599:  # noqa: PLR2004 - HTTP's error classes
        raise ValueError(word)
    return status


def _amount(word: str) -> int:
    amount = int(word)
    if amount < 0:
        raise ValueError(word)
    return amount


_READERS: Mapping[str, Callable[[str], Any]] = {
    "status": _status,
    "retry_after": _amount,
    "hang": float,
    "after": _amount,
    "error_after": _amount,
    "slow": _amount,
    "usage": _usage,
    "no_usage": _flag,
    "gzip": _flag,
    "garbage": _flag,
}


def parse(header: str) -> Faults:
    """The faults a header asks for. Raises `Refused` (400) on one that does not exist."""
    asked: dict[str, Any] = {}
    for pair in filter(None, (pair.strip() for pair in header.split(","))):
        key, _, value = pair.partition("=")
        name = key.replace("-", "_")
        try:
            asked[name] = _READERS[name](value)
        except (KeyError, ValueError):
            known = ", ".join(field.name.replace("_", "-") for field in fields(Faults))
            raise Refused(
                400, f"x-demo-fault: '{pair}' is not one of {known}, or has a wrong value."
            ) from None
    return Faults(**asked)


def spoil(parts: Iterable[Part], faults: Faults, error: bytes) -> Iterator[Part]:
    """The parts of an answer, ended early where that was asked for; `error` is the dialect's event."""
    limits = [(faults.after, CUT), (faults.error_after, Part(data=error, is_failure=True))]
    asked = [(limit, ending) for limit, ending in limits if limit is not None]
    if not asked:
        yield from parts
        return
    limit, ending = min(asked, key=lambda entry: entry[0])
    chunks = 0
    for part in parts:
        if part.chunks and chunks == limit:  # only where the limit is zero
            yield ending
            return
        yield part
        chunks += part.chunks
        if part.chunks and chunks == limit:
            yield ending
            return
